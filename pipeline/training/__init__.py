"""The training loop: loading, optimizer, learning rate, metrics, checkpoints.

loop.py         all epochs of one network;  step.py  one batch;  several.py  several networks in one loop
learner.py      one network on its way: optimizer.py, fused_step.py (its steps on a processor), lr_schedule.py,
                averaging.py, choosing.py (which epoch is kept), frozen.py (layers that are not trained)
loading.py      batches;  token_keys.py  of token samples;  batch_runs.py  several small ones in one call;
                worker_processes.py  workers, how they are started;  worker_batches.py  what they make;  sending.py
                sent by them, in lent_memory.py, which is used again;  background.py  prefetched;  on_device.py  data
                that lie on the device
forward.py      calls a network;  device.py  which device and precision;  recorded.py  CUDA graphs
checkpoint.py   written and resumed;  partial_epoch.py  within an epoch;  loss_totals.py  what it has added up;
                epoch_log.py  metrics.jsonl
evaluation.py   logits and metrics on a dataset;  metrics.py  the metrics;  divergence.py  losses that are no numbers;
                steadiness.py  whether a network gives the same outputs again
group.py        the ranks of one network;  data_parallel.py  each computes its rows;  whole_batch.py  what looks at
                all;  mean_parallel.py  where the loss is a mean over rows
teacher_rows.py the rows of a cache that are missing, computed and written;  handout.py  which process computes which;
                encoding.py  encoded on the device
"""
