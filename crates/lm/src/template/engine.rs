//! The template engine: it behaves as `transformers`' does, and no template can make it panic, run for long, or fill the
//! memory.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, StringInput, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::{json, marks, source};

/// The engine's measure of work: about one for each instruction and one for each 64 bytes of text.
const FUEL: u64 = 1_500_000;
/// The most bytes that a template may write.
pub const MOST_OUTPUT_BYTES: usize = 16 << 20;
/// Enough for the deepest recursion that source and fuel allow. Memory that is not used is never taken.
const STACK_BYTES: usize = 256 << 20;
/// How deep lists and objects may be nested in a value that a variable keeps.
const MOST_NESTED: usize = 128;
/// The most items of a list that a variable keeps.
const MOST_ITEMS: usize = 1 << 20;

/// Runs `work` with a stack on which templates can be compiled and rendered.
///
/// # Errors
/// A sentence for the user, if the thread cannot be started or panics.
pub fn with_stack<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || crate::panics::caught(work));
        let thread = thread.map_err(|error| format!("no thread for the template: {error}"))?;
        thread.join().expect("panics are caught within")
    })
}

/// The template engine, configured as `transformers` configures Jinja.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_unknown_method_callback(marks::method);
    environment.set_formatter(|output, state, value| match value.kind() {
        ValueKind::None => output.write_str("None").map_err(Into::into),
        ValueKind::Bool => output.write_str(if value.is_true() { "True" } else { "False" }).map_err(Into::into),
        _ => minijinja::escape_formatter(output, state, value),
    });
    for (filter, method) in [
        ("trim", "strip"),
        ("lower", "lower"),
        ("upper", "upper"),
        ("title", "title"),
        ("capitalize", "capitalize"),
        ("replace", "replace"),
    ] {
        environment.add_filter(filter, move |state: &mut State, text: StringInput, args: Rest<Value>| {
            let is_text = |arg: &Value| matches!(arg.kind(), ValueKind::String | ValueKind::None);
            let args: Vec<Value> = args
                .iter()
                .map(|arg| if filter != "replace" || is_text(arg) { arg.clone() } else { arg.to_string().into() })
                .collect();
            marks::method(state, &Value::from(text.as_str()), method, &args)
        });
    }
    environment.add_filter(source::KEEP, |state: &State, value: Value| {
        let value = listed(state, value)?;
        // A namespace by itself is what `set ns = namespace()` keeps.
        if !is_namespace(&value) {
            check(state, &value, true, MOST_NESTED)?;
        }
        Ok::<_, Error>(value)
    });
    environment.add_filter(source::KEEP_INSIDE, |state: &State, value: Value| {
        let value = listed(state, value)?;
        check(state, &value, false, MOST_NESTED)?;
        Ok::<_, Error>(value)
    });
    environment.add_filter("tojson", |state: &State, value: Value, options: Kwargs| {
        check(state, &value, true, MOST_NESTED)?;
        json::dumps(&value, &options)
    });
    environment.add_function("raise_exception", |message: Cow<str>| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.into_owned()))
    });
    environment
}

/// The value itself, or the list of an iterator's items.
fn listed(state: &State, value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        items.push(item);
    }
    Ok(items.into())
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Returns an error for a value that is nested deeper than `depth`, has too many items, or holds a namespace.
///
/// * `iterators`: whether it may hold iterators.
fn check(state: &State, value: &Value, iterators: bool, depth: usize) -> Result<(), Error> {
    let refuse = |problem: &str| Err(Error::new(ErrorKind::InvalidOperation, problem.to_string()));
    match value.kind() {
        ValueKind::Iterable if !iterators => {
            return refuse("an iterator cannot be kept in a namespace: make it a list");
        }
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {}
        _ => return Ok(()),
    }
    if depth == 0 {
        return refuse("a value is nested too deep");
    }
    if is_namespace(value) {
        return refuse("a namespace cannot be kept in another value");
    }
    if value.len().is_some_and(|len| len > MOST_ITEMS) {
        return refuse("a list is too long");
    }
    for (number, item) in value.try_iter()?.enumerate() {
        // Looking at an item is cheaper than an instruction.
        state.consume_fuel(u64::from(number % 16 == 0))?;
        match value.kind() {
            ValueKind::Map => check(state, &value.get_item(&item)?, iterators, depth - 1)?,
            _ => check(state, &item, iterators, depth - 1)?,
        }
    }
    Ok(())
}
