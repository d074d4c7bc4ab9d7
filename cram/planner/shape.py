"""A shape: the size of a model and of its updates, which is what a plan chooses."""

from dataclasses import dataclass, replace

from cram.config.config import Config


@dataclass(frozen=True)
class Shape:
    """Size of a model and of an update.

    Attributes:
        layers: number of transformer blocks.
        width: size of the hidden vectors.
        heads: number of attention heads.
        mlp_width: inner width of the gated MLP.
        batch_tokens: tokens of an update.
    """

    layers: int
    width: int
    heads: int
    mlp_width: int
    batch_tokens: int

    @classmethod
    def of(cls, config: Config) -> "Shape":
        """Take the shape out of a config."""
        model = config.model
        return cls(model.layers, model.width, model.heads, model.mlp_width, config.batch.tokens)

    def apply(self, config: Config) -> Config:
        """Give a config of this shape that is like another one in everything else."""
        model = replace(config.model, layers=self.layers, width=self.width, heads=self.heads, mlp_width=self.mlp_width)
        return replace(config, model=model, batch=replace(config.batch, tokens=self.batch_tokens))
