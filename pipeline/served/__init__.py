"""Teachers behind a server: the requests, the answers of each kind of server, and the checks of these answers.

teacher.py    `ServedTeacher`;  server.py  a server, and which kind it is;  connection.py  requests;
              pool.py  several at once
dialect.py    how a server is asked;  vllm.py, sglang.py, llama_cpp.py, echo.py (other completions)    a kind each
prompt.py     the tokens that are asked about;  token_names.py  tokens that a server names by their texts
heads.py      what a server said, as arrays;  sameness.py  whether it still has the same model
"""

from __future__ import annotations

from decant.pipeline.served.teacher import ServedTeacher

__all__ = ["ServedTeacher"]
