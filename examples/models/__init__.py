"""Models in Flax nnx: the papers' models, with the layouts and initialisations of their code, and a decoder."""

from examples.models.decoder import Decoder
from examples.models.lenet5 import LeNet5, lenet5_small
from examples.models.linear import Linear
from examples.models.mlp import MLP
from examples.models.resnet50 import ResNet50, imagenet_resnet50, rigl_resnet50
from examples.models.synthetic import SyntheticConvNet
from examples.models.tacotron2 import Tacotron2
from examples.models.transformer_xl import TransformerXL
from examples.models.vgg19 import VGG19
from examples.models.vit_mim import ViTMIM

__all__ = [
    "MLP",
    "VGG19",
    "Decoder",
    "LeNet5",
    "Linear",
    "ResNet50",
    "SyntheticConvNet",
    "Tacotron2",
    "TransformerXL",
    "ViTMIM",
    "imagenet_resnet50",
    "lenet5_small",
    "rigl_resnet50",
]
