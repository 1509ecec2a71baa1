"""What a nat of distance to the reference costs, and how that price follows the distance.

In: the price, the distance wanted, the distance seen. Out: the next price. After Ziegler et al. 2019, "Fine-Tuning
Language Models from Human Preferences", section 2.2: a controller that works on the logarithm of the price.
"""

import dataclasses
from dataclasses import dataclass

from groundup.errors import SettingsError

WIDEST = 0.2  # relative error beyond which it makes no difference how large it is (the paper's)
GAIN = 0.5  # the paper's is 0.1, for thousands of rollouts; with dozens of them that would never get anywhere


@dataclass(frozen=True)
class Coefficient:
    """The price of a nat, `value`; it stays as it is where no distance is wanted (`target` None).

    After a rollout whose answers are `kl` nats from the reference on average, the price becomes
    value * (1 + GAIN * e), where e = (kl - target) / target, cut to [-0.2, 0.2]: at most a tenth more or less.

    Raises SettingsError for a target beside a price of 0, which no factor could raise.

    >>> price = Coefficient(0.1, target=6.0)
    >>> price.after(12.0).value, price.after(6.6).value, price.after(0.0).value  # e = 0.2, 0.1, -0.2
    (0.11, 0.105, 0.09)
    """

    value: float
    target: float | None = None

    def __post_init__(self) -> None:
        if self.target is not None and not self.value > 0:
            raise SettingsError(
                f"--kl-target {self.target:g} cannot be reached from --kl {self.value:g}: its multiples are all 0",
                "give a --kl above 0 to begin with, such as 0.05",
            )

    def after(self, kl: float) -> "Coefficient":
        """The price for the next rollout."""
        if self.target is None:
            return self
        error = (kl - self.target) / self.target
        return dataclasses.replace(self, value=self.value * (1 + GAIN * max(-WIDEST, min(WIDEST, error))))
