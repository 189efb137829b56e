"""What the outputs in a cache are like, and whether they can be a trained teacher's; with NumPy alone.

outputs.py           accuracy, calibration and entropy; errors of a regression
sigmoids.py          scores of outputs that have a sigmoid each
positions.py         the same of samples with several rows each; row_facts.py, what each row says
position_profile.py  how rows change along their samples, and the rows of a sample
plausibility.py      what makes a cache doubtful: chance, one class, probabilities, no spread;
class_order.py       a teacher that has its classes in another order than the labels
"""
