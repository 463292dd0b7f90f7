"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake outside the program: a bad key, file, download or device.

    The message is one line in plain English that names the key or file at fault and says how to
    mend it. Scripts print it without a traceback; everything else keeps its traceback.
    """
