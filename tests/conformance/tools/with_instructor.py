"""Instructor's command line: `jobs create-from-file`, which waits until its file is processed, `jobs create-from-id`, the
table of jobs, `jobs cancel`, and `files upload`, `list`, `status` and `delete`."""

import json
import sys

from instructor.cli import jobs
from instructor.cli.cli import app
from openai import OpenAI
from typer.testing import CliRunner

# It would draw its table of jobs anew until it is interrupted; here it is drawn once.
jobs.watch = lambda **_: jobs.console.print(jobs.generate_table(jobs.get_jobs(limit=5)))


def instructor(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


print(instructor("jobs", "create-from-file", sys.argv[1], "--model", "tiny", "--n-epochs", 50))
job = OpenAI().fine_tuning.jobs.list(limit=1).data[0]
assert job.hyperparameters.n_epochs == 50
print(instructor("jobs", "cancel", job.id))

print(instructor("files", "upload", sys.argv[1], "--poll", 1))
file = OpenAI().files.list(purpose="fine-tune").data[0]
print(instructor("files", "list"), instructor("files", "status", file.id))
print(instructor("jobs", "create-from-id", file.id, "--model", "tiny", "--n-epochs", 50))
from_id = OpenAI().fine_tuning.jobs.list(limit=1).data[0]
assert from_id.training_file == file.id
print(instructor("jobs", "cancel", from_id.id))
print(instructor("files", "delete", file.id))
assert file.id not in [left.id for left in OpenAI().files.list()]
print(json.dumps({"status": OpenAI().fine_tuning.jobs.retrieve(job.id).status}))
