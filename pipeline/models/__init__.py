"""A network by name: `build("resnet20", 100, input_shape=(3, 32, 32), mean=…, std=…)`.

registry.py      name → network, its arguments checked
preprocess.py    the first layer: uint8 pixels or float features → normalised float32
shapes.py        what an input must look like for a network to take it
cifar_resnet.py  wide_resnet.py  vgg.py  mobilenet.py  small.py      the networks that ship
external.py      torchvision:NAME, timm:NAME and package.module:function
texts.py         networks for texts;  bert.py  BERT and others of the transformers library
"""

from __future__ import annotations

from pipeline.models.preprocess import Network, Preprocess
from pipeline.models.registry import build, names
from pipeline.models.texts import TextNetwork

__all__ = ["Network", "Preprocess", "TextNetwork", "build", "names"]
