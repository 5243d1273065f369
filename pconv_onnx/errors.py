"""The one exception that is told to a user as a sentence, without a traceback."""


class PconvError(Exception):
    """A fault that a user can mend.

    Attributes:
        message: what is wrong and where, one line.
        hint: what to do about it, one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep both parts on one line each, whatever they quote."""
        # What is quoted from elsewhere may end in a full stop, or be empty and leave a colon.
        self.message, self.hint = (" ".join(text.split()).rstrip(" .:") for text in (message, hint))
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)
