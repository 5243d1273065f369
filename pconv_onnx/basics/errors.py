"""What is told to a user as a sentence, without a traceback; texts that a terminal can be given."""


class PconvError(Exception):
    """A fault that a user can mend.

    Attributes:
        message: what is wrong and where, one line.
        hint: what to do about it, one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep both parts on one line each that a terminal can be given, whatever they quote."""
        # What is quoted from elsewhere may end in a full stop, or be empty and leave a colon.
        self.message, self.hint = (printable(" ".join(text.split())).rstrip(" .:") for text in (message, hint))
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


class WrongArguments(PconvError):
    """Arguments that are wrong by themselves, or beside each other, whatever model and data are."""


def printable(text: str) -> str:
    """The text with what is no letter, mark or space as an escape: a terminal would act on some of it.

    Names in a model may hold control characters, and marks that have it read in the other direction.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
