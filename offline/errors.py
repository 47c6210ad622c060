"""The root of what builders refuse to do."""

from __future__ import annotations


class BuilderError(Exception):
    """A builder cannot go on for a reason that a person can mend: names the file, key or field, and what it expected.

    BuildConfigError     the configuration of a build
    DatasetError         a public data set's package
    LogsError            a host's files, or the logs made of them
    EncoderError         a text encoder's directory
    LanguageModelError   a language model that cannot be reached or read
    NodeTableError, VocabularyError, SummaryError, InterestTableError    what the interests' builder left
    GroupsError          groups that cannot be made of what there is
    DivergedError        a training whose losses or weights are no numbers any more
    ExportError          a model that does not survive its export
    LibraryMissing       a package that only the evaluation needs
    ContentsError        parts of a snapshot that do not fit together
    GraphError           a graph, or a file it is read from
    StepError            a step's inputs
    """
