"""The sections of the page, one module each; every one turns a `Subject` into a `Section`.

answer.py          student against teacher and against labels only: metrics, sizes, speed
curves.py          loss terms, metric and learning rate by epoch
cached.py          what the cache holds: confidence, entropy, where the file comes from
inspector.py       samples one by one, with teacher's and student's probabilities; likely label errors
sample_choice.py     which samples the inspector shows, and which labels are likely wrong
sample_display.py    a sample as image, text or numbers
quality.py         accuracy, calibration and confusion on the test part; errors of a regression
confusion.py         confusion matrices, and which classes of many they show
cost.py            how long each phase took, and after how many students the cache has paid for itself
decisions.py       the same where each output has a sigmoid
tokens.py          a language model's test tokens, teacher and student side by side
positions.py       what a cache holds whose samples have several rows each;  saved.py  what it saved
exported.py        the files of `decant export`
"""
