import pytest

from medssl_mm.errors import InstallError, UserError, run_tool


def test_user_error_is_one_line_and_exit_code_2(capsys):
    def main():
        raise UserError('data/btcv has no dataset.json; import it first')

    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert streams.err == ('error: data/btcv has no dataset.json; import it first\n')
    assert streams.out == ''


def test_other_errors_keep_their_traceback():
    def main():
        raise ZeroDivisionError('a bug')

    with pytest.raises(ZeroDivisionError, match='a bug'):
        run_tool(main)


def test_interruption_has_the_code_of_a_shell(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert stop.value.code == 130


def test_install_error_is_not_an_import_error():
    """mmengine swallows import errors of the packages it looks up."""
    assert issubclass(InstallError, UserError)
    assert not issubclass(InstallError, ImportError)
