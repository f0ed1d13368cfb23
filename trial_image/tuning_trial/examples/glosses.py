"""WordNet glosses: from the definition of a word, tell which of 45 fields it belongs to; a small Transformer.

117,659 glosses, such as "American red squirrels" of the field noun.animal, come with the package, so that nothing is
downloaded. Always answering with the most frequent field is right in 12 % of them. WordNet 3.0 is copyright of
Princeton University; see data/LICENSE-wordnet.txt. The data were built with trial_image/build_glosses.py.

An epoch takes minutes on a CPU. There, give `GlossData` a `limit`, and the optimizer `fused: true`: with small batches,
its step over an embedding of 50,000 words otherwise takes longer than all the rest.

Nothing is read before a trial's `setup`: a worker imports this module once and forks for each trial.
"""

import functools
import lzma
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

Batch = tuple[Tensor, Tensor]
"""Word ids (batch, words), padded on the right, and classes (batch)."""

DATA = Path(__file__).parent / "data" / "wordnet-glosses.tsv.xz"
CLASSES = 45
PADDING, UNKNOWN = 0, 1
MOST_HEADS = 8
VALIDATION_BATCH = 512
POOL = 50
"""Batches whose glosses are sorted by length together: more need less padding and are less random."""

_WORD = re.compile(r"[a-z0-9]+")


class TransformerClassifier(pl.LightningModule):
    """A Transformer encoder over the words. It has no `configure_optimizers`: LightningCLI's `optimizer` key chooses one."""

    def __init__(
        self, vocab_size: int = 50_000, num_layers: int = 2, embedding_dim: int = 128, dropout: float = 0.1
    ) -> None:
        """Build the layers.

        Args:
            vocab_size: Number of word ids; at least that of the data.
            num_layers: Encoder layers.
            embedding_dim: Width of the embedding and of all layers. 8 attention heads share it if it can be divided by 8.
            dropout: Share of activations that are dropped while training.
        """
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            embedding_dim,
            nhead=math.gcd(embedding_dim, MOST_HEADS),
            dim_feedforward=4 * embedding_dim,
            dropout=dropout,
            batch_first=True,
            norm_first=True,  # deep encoders then train without a warm-up of the learning rate
        )
        self.encoder = nn.TransformerEncoder(
            layer, num_layers, norm=nn.LayerNorm(embedding_dim), enable_nested_tensor=False
        )
        self.head = nn.Linear(embedding_dim, CLASSES)

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Refuse data with more words than the embedding has; a GPU would only say that an assertion failed."""
        words = getattr(getattr(self.trainer, "datamodule", None), "vocab_size", 0)
        if words > self.vocab_size:
            raise ValueError(f"the model's vocab_size is {self.vocab_size}, and the data's is {words}: make them equal")

    def forward(self, words: Tensor) -> Tensor:
        """From (batch, words) ids to (batch, 45) logits."""
        is_padding = words == PADDING
        embedded = self.embedding(words)
        embedded = self.dropout(embedded + _positions(words.shape[1], like=embedded))
        encoded = self.encoder(embedded, src_key_padding_mask=is_padding)
        logits: Tensor = self.head(_mean_over_words(encoded, is_padding))
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch."""
        words, classes = batch
        loss = functional.cross_entropy(self(words), classes)
        self.log("train_loss", loss, batch_size=len(classes))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log `val_loss` and `val_acc`; with the size of the batch, Lightning's means are those over all glosses."""
        words, classes = batch
        logits = self(words)
        accuracy = (logits.argmax(dim=1) == classes).float().mean()
        self.log("val_loss", functional.cross_entropy(logits, classes), batch_size=len(classes))
        self.log("val_acc", accuracy, batch_size=len(classes))


def _positions(length: int, *, like: Tensor) -> Tensor:
    """Sines and cosines of the position, (length, width of `like`): for any length, and nothing to learn."""
    width = like.shape[-1]
    position = torch.arange(length, device=like.device).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000) / width))
    angles = position * frequency
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width].to(like.dtype)


def _mean_over_words(encoded: Tensor, is_padding: Tensor) -> Tensor:
    """From (batch, words, width) to (batch, width); padding does not count."""
    is_word = (~is_padding).unsqueeze(2).to(encoded.dtype)
    return (encoded * is_word).sum(dim=1) / is_word.sum(dim=1).clamp(min=1)


class GlossData(pl.LightningDataModule):
    """The glosses as word ids, split the same way in every trial."""

    def __init__(
        self,
        batch_size: int = 32,
        *,
        vocab_size: int = 50_000,
        max_length: int = 32,
        validation_share: float = 0.2,
        limit: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Choose the split.

        Args:
            batch_size: Glosses in a training batch.
            vocab_size: Number of word ids; the rarest words share one. Not more than the model's.
            max_length: Words that are kept of a gloss; 32 cut 2 % of the glosses short.
            validation_share: Share of the glosses that is held out.
            limit: Use this many glosses only, chosen once and for all; for a CPU.
            num_workers: Processes that prepare batches. A batch is a lookup in memory, so 0 does well.
        """
        super().__init__()
        self.batch_size = batch_size
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.validation_share = validation_share
        self.limit = limit
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Read the glosses and split them."""
        self.training, self.validation = load(
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            validation_share=self.validation_share,
            limit=self.limit,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches, in another order in each epoch."""
        return self._loader(self.training, batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out glosses, in batches that are the same for every trial."""
        return self._loader(self.validation, batch_size=VALIDATION_BATCH, seed=0)

    def _loader(self, glosses: "Glosses", *, batch_size: int, seed: int | None = None) -> DataLoader[Batch]:
        return DataLoader(
            glosses,
            sampler=BatchesOfSimilarLength(glosses.lengths, batch_size=batch_size, seed=seed),
            batch_size=None,  # the sampler gives the indices of a whole batch
            num_workers=self.num_workers,
        )


class Glosses(Dataset[Batch]):
    """Glosses in memory, taken a batch at a time: much faster than to take one by one and stack them."""

    def __init__(self, ids: Tensor, classes: Tensor) -> None:
        """Take padded word ids (glosses, words) and classes (glosses)."""
        self.ids = ids
        self.classes = classes
        self.lengths = (ids != PADDING).sum(dim=1)

    def __len__(self) -> int:
        """Number of glosses."""
        return len(self.classes)

    def __getitem__(self, indices: Tensor) -> Batch:
        """A batch, as wide as its longest gloss."""
        return self.ids[indices, : int(self.lengths[indices].max())], self.classes[indices]


class BatchesOfSimilarLength(Sampler[Tensor]):
    """Random batches that need little padding: a batch of any glosses is as wide as the longest, more than twice the mean."""

    def __init__(self, lengths: Tensor, *, batch_size: int, seed: int | None = None) -> None:
        """Choose the order.

        Args:
            lengths: Words in each gloss.
            batch_size: Glosses in a batch.
            seed: For the same order in each epoch; None takes another one each time, from the trial's seed.
        """
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """The indices of each batch. Glosses are sorted within a random pool, and its batches shuffled."""
        # Its own generator, seeded at once, as torch's samplers do: what is drawn while the epoch runs would come in between
        # what the training draws, and a trial that was interrupted could not go on in the middle of an epoch.
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.lengths), generator=generator)
        for pool in torch.split(order, POOL * self.batch_size):
            batches = torch.split(pool[self.lengths[pool].argsort(stable=True)], self.batch_size)
            for index in torch.randperm(len(batches), generator=generator).tolist():
                yield batches[index]


@functools.cache
def load(
    *, vocab_size: int, max_length: int, validation_share: float, limit: int | None = None
) -> tuple[Glosses, Glosses]:
    """The glosses for training and those for validation."""
    fields, glosses = _read()
    # Its own generator: the split must not follow the trial's seed, or trials would be judged on different glosses.
    order = torch.randperm(len(glosses), generator=torch.Generator().manual_seed(0))[:limit].tolist()
    held_out = int(len(order) * validation_share)
    words, counts = _tokenize((glosses[index] for index in order), max_length=max_length)
    vocabulary = build_vocabulary(words[sum(counts[:held_out]) :], vocab_size=vocab_size)  # of the training's glosses
    ids = _pad([vocabulary.get(word, UNKNOWN) for word in words], counts, max_length=max_length)
    numbers = {field: number for number, field in enumerate(sorted(set(fields)))}
    classes = torch.tensor([numbers[fields[index]] for index in order])
    return Glosses(ids[held_out:], classes[held_out:]), Glosses(ids[:held_out], classes[:held_out])


def _read() -> tuple[list[str], list[str]]:
    """The field of every line, and its gloss."""
    fields, glosses = [], []
    with lzma.open(DATA, "rt", encoding="ascii") as lines:
        for line in lines:
            field, _, gloss = line.partition("\t")
            fields.append(field)
            glosses.append(gloss)
    return fields, glosses


def _tokenize(glosses: Iterable[str], *, max_length: int) -> tuple[list[str], list[int]]:
    """All words in one list, and how many each gloss has: 100,000 small lists would keep the garbage collector busy."""
    words: list[str] = []
    counts = []
    for gloss in glosses:
        found = _WORD.findall(gloss.lower())[:max_length]
        words += found
        counts.append(len(found))
    return words, counts


def build_vocabulary(words: Iterable[str], *, vocab_size: int) -> dict[str, int]:
    """An id for each word, from 2 on and below `vocab_size`: the more frequent, the lower."""
    kept = Counter(words).most_common(vocab_size - 2)
    return {word: index for index, (word, _) in enumerate(kept, start=2)}


def _pad(ids: list[int], counts: list[int], *, max_length: int) -> Tensor:
    """From the ids of all words and the number of each gloss to (glosses, max_length)."""
    is_word = torch.arange(max_length) < torch.tensor(counts).unsqueeze(1)
    padded = torch.full(is_word.shape, PADDING)
    padded[is_word] = torch.tensor(ids)
    return padded
