"""The card of a model: what its seller states to buyers, beside what training found out."""

from pydantic import BaseModel, ConfigDict


class Card(BaseModel):
    """The seller's part of a model's card, from `card` in `dataset.json`.

    Args:
        public: whether anyone may read the card, without a token.
        title: "" for the name of the model.
        summary: a few sentences about what it predicts and for whom.
        limitations: what it must not be used for; a text, or a list of texts.
    """

    model_config = ConfigDict(frozen=True)

    public: bool = False
    title: str = ""
    summary: str = ""
    limitations: str | list[str] = ""
