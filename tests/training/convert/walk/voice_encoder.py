"""Resemblyzer's network as docs/convert-resemblyzer.md has it: its package needs libraries for sound."""

import torch
from torch import Tensor, nn


class VoiceEncoder(nn.Module):
    """Three LSTM layers over mel frames (batch, time, 40); the last state becomes 256 numbers of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        # Two numbers of the training loss, which the checkpoint holds as well.
        self.similarity_weight = nn.Parameter(torch.ones(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        voice = torch.relu(self.linear(hidden[-1]))
        embedding: Tensor = voice / voice.norm(dim=1, keepdim=True)
        return embedding
