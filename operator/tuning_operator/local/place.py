"""Where a study is: its manifest, its folder and its database, from what a person names on the command line."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from tuning_api import manifest
from tuning_api.manifest import ManifestError
from tuning_api.schema import Document
from tuning_operator.local.database import read_url, sqlite_url
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.folder import PARENT, StudyFolder, read_json, write_json
from tuning_operator.model import StudyKey


@dataclass(frozen=True)
class Place:
    """A study's manifest, folder and database."""

    key: StudyKey
    file: Path
    document: Document
    folder: StudyFolder
    database: URL

    def remember(self) -> None:
        """Let later commands find the study by its name. NB: a password is not written down."""
        record = read_json(self.folder.record)
        database = None
        if self.database != sqlite_url(self.folder.database):
            database = self.database.set(password=None).render_as_string()
        own = {"namespace": self.key.namespace, "manifest": str(self.file.absolute()), "database": database}
        write_json(self.folder.record, record | own)


def choose(file: Path, *, database: str | None, folder: Path | None) -> Place:
    """Where the study of a manifest is, or will be.

    Raises:
        BadInputError: the manifest cannot be read, or the database is none.
    """
    try:
        document = manifest.load(file)
    except ManifestError as error:
        raise BadInputError(str(error)) from error
    name = manifest.name_of(document)
    place = StudyFolder(folder.absolute()) if folder else StudyFolder.beside(file, name)
    return Place(
        key=StudyKey(manifest.namespace_of(document), name),
        file=file,
        document=document,
        folder=place,
        database=_database(place, database),
    )


def find(name_or_file: str, *, database: str | None, folder: Path | None) -> Place:
    """Where a study is that was run, by its name below this folder or by its manifest.

    Raises:
        BadInputError: there is none.
    """
    if _is_file(name_or_file):
        place = choose(Path(name_or_file), database=database, folder=folder)
    else:
        place = _by_name(name_or_file, database=database, folder=folder)
    if not place.folder.record.exists() and database is None:
        raise BadInputError(f"study {place.key.name} has not been run: there is no {place.folder.path}")
    return place


def _is_file(text: str) -> bool:
    return Path(text).suffix in {".yaml", ".yml", ".json"} or Path(text).is_file()


def _by_name(name: str, *, database: str | None, folder: Path | None) -> Place:
    place = StudyFolder(folder.absolute() if folder else Path(PARENT).absolute() / name)
    record = read_json(place.record)
    if not record and database is None:
        known = sorted(item.parent.name for item in Path(PARENT).glob("*/study.json"))
        advice = "; name its manifest, use --folder, or -n NAMESPACE for a cluster's study"
        others = f"; studies here: {', '.join(known)}" if known else advice
        raise BadInputError(f"there is no study {name} below {Path(PARENT).absolute()}{others}")
    file = Path(record.get("manifest", f"{name}.yaml"))
    try:
        document = manifest.load(file)
    except ManifestError:
        document = {}  # the trials do not need it
    return Place(
        key=StudyKey(str(record.get("namespace", manifest.DEFAULT_NAMESPACE)), name),
        file=file,
        document=document,
        folder=place,
        database=_database(place, database),
    )


def _database(folder: StudyFolder, chosen: str | None) -> URL:
    """The one that is chosen now, or the one of the last run, or a file in the folder."""
    if chosen:
        return read_url(chosen)
    remembered = read_json(folder.record).get("database")
    return read_url(str(remembered)) if remembered else sqlite_url(folder.database)
