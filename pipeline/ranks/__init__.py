"""The ranks of one job: processes that `torchrun`, or a scheduler in its place, starts with one command.

launch.py         whether this process is one of several, from its environment
job.py            joins them through the launcher's store
facts.py          compares what they are about to do
process_group.py  starts torch's process group and ends it
local_ranks.py    ranks that a command starts itself, for `--jobs`;  cores.py  the cores that each may use
script.py         the ranks of a user's own script
said.py           what is said once for the whole job;  ending.py  has one rank say why the job ended
leaving.py        how a rank leaves;  watch.py  ends one that is cut off from the launcher
"""
