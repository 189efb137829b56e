"""The ranks of one job: processes that `torchrun`, or a scheduler in its place, starts with one command.

`launch` says whether this process is one of several, from its environment. `job` joins them through the launcher's
store. `facts` compares what they are about to do. `process_group` starts torch's process group and ends it. `ending`
has one rank say why the job ended.
"""
