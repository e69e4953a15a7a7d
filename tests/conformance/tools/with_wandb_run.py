"""A run of Weights & Biases' own client on the server that the environment names: made, logged to, finished."""

import sys

import wandb

quiet = wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True, x_disable_meta=True)
run = wandb.init(
    project="support", name="first", id=sys.argv[1], tags=["a"], job_type="fine-tune", config={"seed": 3}, settings=quiet
)
for step in (1, 2):
    run.log({"train_loss": 1 / step}, step=step)
run.finish(exit_code=int(sys.argv[2]))
