"""Where the metrics of a run go while it trains, beside metrics.jsonl: `--log-to tensorboard`, `wandb`, `mlflow`.

log_to.py       the trackers of a command; one that fails is said once and left, and the training goes on
tracker.py      what all trackers have in common, and what they get of a run
event_files.py  TensorBoard
weights_and_biases.py, mlflow_store.py
"""
