"""`WandbLogger.sync` on a finished job, offline: it reads the job and its files, and logs a row for each
step; then on the latest jobs, which it lists."""

import json
import os

import wandb
from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger

# Only to ask its own service, which is not there, whether the run or the file was logged before, and to name the file.
WandbLogger._get_wandb_run = classmethod(lambda *_: None)
WandbLogger._get_wandb_artifact = classmethod(lambda *_: None)
wandb.Run.use_artifact = lambda *_, **__: None
rows = []
log = wandb.Run.log
wandb.Run.log = lambda run, data, *args, **kwargs: (rows.append(data), log(run, data, *args, **kwargs))[1]


class Files:
    """Which files were read."""

    def __init__(self, client):
        self.read = []
        self.client = client

    def content(self, file_id):
        self.read.append(file_id)
        return self.client.content(file_id)


client = OpenAI()
files = client.files = Files(client.files)
job = client.fine_tuning.jobs.retrieve(os.environ["ATTUNE_JOB"])

done = WandbLogger.sync(fine_tune_job_id=job.id, openai_client=client)
assert {*files.read} == {job.result_files[0], job.training_file, job.validation_file}, files.read
steps = [row for row in rows if "train_loss" in row]
wandb.finish()
WandbLogger.sync(openai_client=client, num_fine_tunes=1, log_datasets=False)
print(json.dumps({"done": done, "rows": len(steps)}))
