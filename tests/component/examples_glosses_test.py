"""The examples as a trial runs them: the samples' configurations fit, and the Transformer of the glosses learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.nn import functional

from tuning_api.schema import Scalar
from tuning_api.search import Parameter
from tuning_api.spec import StudySpec
from tuning_trial import config, lightning_parser, lightning_runner
from tuning_trial.examples import glosses
from tuning_trial.examples.glosses import BatchesOfSimilarLength, GlossData, TransformerClassifier
from tuning_trial.outcomes import Completed, Failed, Pruned
from tuning_trial.pruning import ReportAndPrune

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]
SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
MODULE = "tuning_trial.examples.glosses"
VOCAB_SIZE = 2_000


def a_spec(sample: str) -> StudySpec:
    return StudySpec.model_validate(yaml.safe_load((SAMPLES / f"{sample}.yaml").read_text())["spec"])


def an_end_of(parameter: Parameter, *, first: bool) -> Scalar:
    if parameter.choices:
        return parameter.choices[0 if first else -1]
    end = parameter.low if first else parameter.high
    assert end is not None
    return int(end) if parameter.type == "int" else end


def a_batch(*glosses_of_ids: list[int], width: int) -> torch.Tensor:
    return torch.tensor([ids + [glosses.PADDING] * (width - len(ids)) for ids in glosses_of_ids])


def train(
    folder: Path, *, epochs: int = 1, limit: int = 400, model_vocab_size: int = VOCAB_SIZE, lr: float = 1e-3
) -> Completed | Pruned | Failed:
    """A small training on the CPU, through the runner of a trial."""
    lightning: dict[str, Any] = {
        "model": {
            "class_path": f"{MODULE}.TransformerClassifier",
            "init_args": {"vocab_size": model_vocab_size, "embedding_dim": 32, "num_layers": 1},
        },
        "data": {
            "class_path": f"{MODULE}.GlossData",
            "init_args": {"batch_size": 64, "vocab_size": VOCAB_SIZE, "limit": limit},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr}},
        "trainer": {"max_epochs": epochs, "accelerator": "cpu"},
    }
    callback = ReportAndPrune(metrics=["val_acc"], judge=None, tell_progress=lambda _: None, name="trial 1")
    parser = lightning_parser.build_parser()
    return lightning_runner.train(lightning, parser=parser, seed=1, folder=folder, callback=callback)


@pytest.mark.parametrize("first", [True, False], ids=["low", "high"])
@pytest.mark.parametrize("sample", ["digits", "glosses", "minimal"])
def test_a_sample_fits_the_constructors_of_its_classes(sample: str, first: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """With the values at either end of its search space; a misspelt argument would fail every trial."""
    spec = a_spec(sample)
    values = {parameter.name: an_end_of(parameter, first=first) for parameter in spec.search_space}
    lightning = config.substitute(spec.trial.lightning or {}, values)
    lightning_parser.parse(lightning_parser.build_parser(), config.with_defaults(lightning, seed=1, folder=tmp_path))


@pytest.mark.parametrize("num_layers", range(2, 9))
@pytest.mark.parametrize("embedding_dim", [128, 256, 512])
def test_every_size_of_the_reference_study_can_be_built(embedding_dim: int, num_layers: int) -> None:
    """The heads share the width, whatever it is."""
    model = TransformerClassifier(vocab_size=10, num_layers=num_layers, embedding_dim=embedding_dim).eval()
    with torch.inference_mode():
        assert model(a_batch([2, 3], [4], width=2)).shape == (2, glosses.CLASSES)


@pytest.mark.parametrize("embedding_dim", [6, 7, 100])
def test_an_odd_width_works_too(embedding_dim: int) -> None:
    """Heads are as many as divide it, eight at most; sines and cosines need no even width."""
    model = TransformerClassifier(vocab_size=10, num_layers=1, embedding_dim=embedding_dim)
    assert model(a_batch([2, 3], width=2)).shape == (1, glosses.CLASSES)


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(training: bool) -> None:  # noqa: FBT001
    """Neither attention nor the mean sees it, or a gloss's class would depend on its neighbours in the batch."""
    torch.manual_seed(0)
    model = TransformerClassifier(vocab_size=10, embedding_dim=32, dropout=0.0).train(training)
    with torch.set_grad_enabled(training):
        alone = model(a_batch([2, 3, 4], width=3))
        padded = model(a_batch([2, 3, 4], [5] * 9, width=9))
    torch.testing.assert_close(padded[:1], alone)


def test_the_order_of_the_words_counts() -> None:
    """A mean over words alone would not know it."""
    torch.manual_seed(0)
    model = TransformerClassifier(vocab_size=10, embedding_dim=32).eval()
    forwards, backwards = model(a_batch([2, 3, 4], [4, 3, 2], width=3))
    assert not torch.allclose(forwards, backwards, atol=1e-3)


def test_the_whole_data_are_split_without_loss() -> None:
    """All 117,659 glosses and 45 classes, ids below vocab_size, and no gloss without a word."""
    data = GlossData()
    data.setup("fit")
    assert (len(data.training), len(data.validation)) == (94_128, 23_531)
    for part in (data.training, data.validation):
        assert set(part.classes.tolist()) == set(range(glosses.CLASSES))
        assert 0 <= int(part.ids.min()) <= int(part.ids.max()) < data.vocab_size
        assert 1 <= int(part.lengths.min()) <= int(part.lengths.max()) <= data.max_length


def test_the_split_is_the_same_whatever_the_seed() -> None:
    """Trials with different seeds are judged on the same glosses; what is cached is of one process only."""
    splits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        glosses.load.cache_clear()
        data = GlossData(limit=300, vocab_size=100)
        data.setup("fit")
        splits.append((data.training.ids, data.validation.ids, data.validation.classes))
    for first, second in zip(*splits, strict=True):
        assert torch.equal(first, second)


def test_the_vocabulary_keeps_the_most_frequent_words() -> None:
    """0 is padding and 1 any other word, so that an id is below vocab_size."""
    words = ["a", "b", "a", "c", "b", "a", "d"]
    assert glosses.build_vocabulary(words, vocab_size=4) == {"a": 2, "b": 3}
    assert glosses.build_vocabulary(words, vocab_size=100) == {"a": 2, "b": 3, "c": 4, "d": 5}


def test_words_of_the_validation_only_are_unknown() -> None:
    """The vocabulary is part of the model, and the model may not see what it is judged on."""
    data = GlossData(limit=300)
    data.setup("fit")
    known = set(data.training.ids.unique().tolist())
    assert glosses.UNKNOWN not in known
    assert set(data.validation.ids.unique().tolist()) <= known | {glosses.UNKNOWN}
    assert glosses.UNKNOWN in data.validation.ids


@pytest.mark.parametrize(("count", "batch_size"), [(1_000, 16), (1_000, 7), (5, 16)])
def test_an_epoch_has_every_gloss_once(count: int, batch_size: int) -> None:
    """In as many batches as the sampler says, all but the last of a pool full."""
    lengths = torch.randint(1, 33, (count,))
    sampler = BatchesOfSimilarLength(lengths, batch_size=batch_size)
    batches = list(sampler)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert len(batches) == len(sampler) == math.ceil(count / batch_size)
    assert max(map(len, batches)) == min(batch_size, count)


def test_training_batches_change_from_epoch_to_epoch_and_validation_batches_do_not() -> None:
    """A partial validation (limit_val_batches) judges all trials on the same glosses."""
    data = GlossData(limit=400, vocab_size=VOCAB_SIZE)
    data.setup("fit")

    def first_batches(loader: Any) -> list[torch.Tensor]:
        return [next(iter(loader))[1] for _ in range(2)]

    assert torch.equal(*first_batches(data.val_dataloader()))
    assert not torch.equal(*first_batches(data.train_dataloader()))


def test_batches_are_as_wide_as_their_longest_gloss() -> None:
    """And that is little more than the mean, which halves the time of a training."""
    data = GlossData(batch_size=16, limit=2_000, vocab_size=VOCAB_SIZE)
    data.setup("fit")
    widths = [ids.shape for ids, _ in data.train_dataloader()]
    assert sum(rows * width for rows, width in widths) < 1.1 * int(data.training.lengths.sum())


def test_a_slice_is_trained_through_the_runner_and_learns(tmp_path: Path) -> None:
    """Better than always answering with the most frequent class, which is right in 12 % of the glosses."""
    result = train(tmp_path, epochs=2, limit=2_000, lr=1e-2)
    assert isinstance(result, Completed)
    assert 0.2 < result.values[0] < 1.0


def test_the_accuracy_is_that_of_the_whole_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the mean of the batches' means: the last batch is smaller."""
    monkeypatch.setattr(glosses, "VALIDATION_BATCH", 70)
    torch.manual_seed(0)
    model, data = TransformerClassifier(VOCAB_SIZE, embedding_dim=32), GlossData(limit=500, vocab_size=VOCAB_SIZE)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    [logged] = trainer.validate(model, datamodule=data, verbose=False)
    with torch.inference_mode():
        logits = model.eval()(data.validation.ids)
    classes = data.validation.classes
    assert len(classes) == 100
    assert logged["val_acc"] == pytest.approx(float((logits.argmax(dim=1) == classes).float().mean()), abs=1e-6)
    assert logged["val_loss"] == pytest.approx(float(functional.cross_entropy(logits, classes)), abs=1e-4)


def test_data_with_more_words_than_the_model_knows_are_refused_in_words(tmp_path: Path) -> None:
    """On a GPU the trial would otherwise end with an assertion of a kernel that names nothing."""
    with pytest.raises(ValueError, match=r"the model's vocab_size is 1000, and the data's is 2000: make them equal"):
        train(tmp_path, model_vocab_size=1_000)
