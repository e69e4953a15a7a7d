"""DSPy's provider for OpenAI as `BootstrapFinetune` calls it: upload, job, polling of the latest event, the model; and a job
that is given up."""

import json
import os

import openai
from dspy.clients.openai import OpenAIProvider, TrainingJobOpenAI
from dspy.clients.utils_finetune import TrainDataFormat, save_data

job = TrainingJobOpenAI()
wait = OpenAIProvider.wait_for_job
OpenAIProvider.wait_for_job = staticmethod(lambda job: wait(job, poll_frequency=1))
rows = [
    {"messages": [{"role": "user", "content": f"is {n} odd?"}, {"role": "assistant", "content": "yes" if n % 2 else "no"}]}
    for n in range(8)
]
model = OpenAIProvider.finetune(
    job, model="openai/tiny", train_data=rows, train_data_format=TrainDataFormat.CHAT, train_kwargs={"n_epochs": 1}
)

given_up = TrainingJobOpenAI()
file = given_up.provider_file_id = OpenAIProvider.upload_data(save_data(rows))
given_up.provider_job_id = OpenAIProvider._start_remote_training(train_file_id=file, model="tiny", train_kwargs={"n_epochs": 50})
cancelled = given_up.provider_job_id
given_up.cancel()
assert not OpenAIProvider.does_file_exist(file)
status = openai.fine_tuning.jobs.retrieve(cancelled).status
print(json.dumps({"model": model, "cancelled": status, "url": os.environ["OPENAI_BASE_URL"]}))
