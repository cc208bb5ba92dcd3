//! Command lines with a variable for each option.

use std::env;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use crate::switch;

/// Reads the command line of this process, and the variables of its options.
///
/// A variable that is empty is as good as unset, and so is that of a switch if it says no.
///
/// # Errors
/// Help or version was asked for, or something is wrong; where a variable may be what is wrong, it is named.
pub fn arguments<T: CommandFactory + FromArgMatches>() -> Result<T, clap::Error> {
    let mut command = without_unset(T::command());
    let read = command.try_get_matches_from_mut(env::args_os()).and_then(|mut matches| {
        T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    read.map_err(|error| naming_variable(error, &command, |name| env::var_os(name)))
}

/// The command without the variables that say nothing: not even a conflict with another option may come of them.
fn without_unset(command: Command) -> Command {
    command.mut_args(|arg| {
        let Some(value) = arg.get_env().and_then(env::var_os) else { return arg };
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let says_no = is_switch && value.to_str().map(switch) == Some(Ok(false));
        if value.is_empty() || says_no { arg.env(Resettable::Reset) } else { arg }
    })
}

/// The error with the variable beside the option, where the value that is wrong is the variable's.
fn naming_variable(
    mut error: clap::Error,
    command: &Command,
    value_of: impl Fn(&str) -> Option<OsString>,
) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(_) | None => None,
    };
    let (Some(option), Some(wrong)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return error;
    };
    let arg = command.get_arguments().find(|arg| arg.to_string() == option);
    if let Some(variable) = arg.and_then(|arg| arg.get_env()?.to_str())
        && value_of(variable).is_some_and(|value| value.to_string_lossy() == wrong)
    {
        // Between the quotes that are put around the option.
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
    fn a_variable_is_named_where_it_may_be_what_is_wrong() {
        for (set, named) in [(None, ""), (Some("8"), ""), (Some("x"), " or 'DT_TEST_N'")] {
            let arg = Arg::new("n").short('n').env("DT_TEST_N").value_parser(at_least_one);
            let mut command = Command::new("test").arg(arg);
            let error = command.try_get_matches_from_mut(["test", "-n", "x"]).unwrap_err();
            let error = naming_variable(error, &command, |_| set.map(OsString::from));
            let expected = format!(
                "invalid value 'x' for '-n <n>'{named}: it is a whole number, 1 at least; try 'test --help'"
            );
            assert_eq!(usage_line("test", &error), expected);
        }
    }
}
