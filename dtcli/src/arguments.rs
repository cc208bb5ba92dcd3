//! Command lines whose options can also be set by environment variables.

use std::env;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use crate::switch;

/// Parses the command line of this process and the environment variables of its options.
///
/// An empty variable counts as unset, and so does the variable of a switch if it is false.
///
/// # Errors
/// Help or version was requested, or an argument is invalid. If the invalid value may come from a variable, the error
/// names it.
pub fn arguments<T: CommandFactory + FromArgMatches>() -> Result<T, clap::Error> {
    parsed(env::args_os())
}

/// As [`arguments`], of the command `name` with the arguments `words`.
///
/// # Errors
/// As for [`arguments`].
pub fn arguments_of<T: CommandFactory + FromArgMatches>(
    name: &str,
    words: impl Iterator<Item = OsString>,
) -> Result<T, clap::Error> {
    parsed(std::iter::once(OsString::from(name)).chain(words))
}

fn parsed<T: CommandFactory + FromArgMatches>(
    words: impl Iterator<Item = OsString>,
) -> Result<T, clap::Error> {
    // A variable may hold what a passer-by should not read in the help.
    let mut command = without_unset(T::command()).mut_args(|arg| arg.hide_env_values(true));
    let read = command.try_get_matches_from_mut(words).and_then(|mut matches| {
        T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    read.map_err(|error| naming_variable(error, &command, |name| env::var_os(name)))
}

/// The command without the variables that count as unset, so that they cannot conflict with other options either.
fn without_unset(command: Command) -> Command {
    command.mut_args(|arg| {
        let Some(value) = arg.get_env().and_then(env::var_os) else { return arg };
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let is_false = is_switch && value.to_str().map(switch) == Some(Ok(false));
        if value.is_empty() || is_false { arg.env(Resettable::Reset) } else { arg }
    })
}

/// The error, naming the variable beside the option if the invalid value is that of the variable.
fn naming_variable(
    mut error: clap::Error,
    command: &Command,
    value_of: impl Fn(&str) -> Option<OsString>,
) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(_) | None => None,
    };
    let (Some(option), Some(invalid)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
    else {
        return error;
    };
    let arg = command.get_arguments().find(|arg| arg.to_string() == option);
    if let Some(variable) = arg.and_then(|arg| arg.get_env()?.to_str())
        && value_of(variable).is_some_and(|value| value.to_string_lossy() == invalid)
    {
        // The error puts quotes around the option.
        let named = format!("{option}' or '{variable}");
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at_least_one;
    use crate::report::usage_line;
    use clap::Arg;

    #[test]
    fn error_names_the_variable_that_holds_the_invalid_value() {
        for (set, named) in [(None, ""), (Some("8"), ""), (Some("x"), " or 'DT_TEST_N'")] {
            let arg = Arg::new("n").short('n').env("DT_TEST_N").value_parser(at_least_one);
            let mut command = Command::new("test").arg(arg);
            let error = command.try_get_matches_from_mut(["test", "-n", "x"]).unwrap_err();
            let error = naming_variable(error, &command, |_| set.map(OsString::from));
            let expected = format!(
                "invalid value 'x' for '-n <n>'{named}: must be a whole number, at least 1; try 'test --help'"
            );
            assert_eq!(usage_line("test", &error), expected);
        }
    }
}
