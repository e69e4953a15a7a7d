"""DSPy's provider for OpenAI as `BootstrapFinetune` calls it: upload, job, polling of the latest event, the model."""

import json
import os

from dspy.clients.openai import OpenAIProvider, TrainingJobOpenAI
from dspy.clients.utils_finetune import TrainDataFormat

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
print(json.dumps({"model": model, "url": os.environ["OPENAI_BASE_URL"]}))
