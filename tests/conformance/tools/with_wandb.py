"""`WandbLogger.sync` on a finished job, offline: it reads the job and the result file, and logs a row for each step."""

import json
import os

import wandb
from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger

# Only to ask its own service whether the run is there already.
WandbLogger._get_wandb_run = classmethod(lambda *_: None)
rows = []
log = wandb.Run.log
wandb.Run.log = lambda run, data, *args, **kwargs: (rows.append(data), log(run, data, *args, **kwargs))[1]

done = WandbLogger.sync(fine_tune_job_id=os.environ["ATTUNE_JOB"], openai_client=OpenAI(), log_datasets=False)
print(json.dumps({"done": done, "rows": len(rows)}))
