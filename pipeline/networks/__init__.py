"""Networks: the ones that ship, those of torchvision and timm, and functions of the user's.

registry.py      name → network, its arguments checked;  build.py  the network of a recipe or of a finished run
preprocess.py    the first layer: uint8 pixels or float features → normalised float32
spec.py          what builds a network, as a run keeps it;  weights.py  weights of finished runs
resizing.py      images resized for one network alone;  kept_columns.py  some of a network's outputs
builders.py      what every function that builds a network takes and uses;  undrawn.py  no initial weights
weight_memory.py how much memory the weights take, before it is taken
cifar_resnet.py  wide_resnet.py  vgg.py  mobilenet.py  lenet.py  small.py      the networks that ship
external.py      torchvision:NAME, timm:NAME and package.module:function
library_classes.py  the classes that a pretrained network knows
text.py          networks for texts;  bert.py  BERT and others of the transformers library;  causal.py  language models;
                 library_config.py  their configurations;  library_networks.py  built from these
foreign_weights/ weights that users bring
"""
