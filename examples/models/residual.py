"""A residual net, to compare with: it solves no ODE.

He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.
"""

import torch
from torch import nn


class PreActBlock(nn.Module):
    def __init__(self, planes_in, planes, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes_in)
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride > 1 or planes_in != planes:
            self.shortcut = nn.Conv2d(planes_in, planes, 1, stride, bias=False)

    def forward(self, x):
        out = torch.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(torch.relu(self.bn2(out)))
        return out + kept


class PreActResNet(nn.Module):
    def __init__(self, channels, classes, width, blocks):
        super().__init__()
        layers, planes_in = [nn.Conv2d(channels, width, 3, 1, 1, bias=False)], width
        for stage, count in enumerate(blocks):
            for block in range(count):
                planes = width * 2**stage
                layers.append(PreActBlock(planes_in, planes, 2 if stage and not block else 1))
                planes_in = planes
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(planes_in), nn.ReLU())
        self.linear = nn.Linear(planes_in, classes)

    def forward(self, x):
        return self.linear(self.layers(x).mean((2, 3)))


def build(channels=1, classes=10, width=16, blocks=(2, 2, 2)):
    return PreActResNet(channels, classes, width, blocks)
