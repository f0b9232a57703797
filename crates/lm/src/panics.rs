//! Panics of other people's libraries on damaged files: [`caught`] turns them into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are caught, so that no message shall be printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which calls a library that may panic. Nothing is printed.
///
/// Whatever `work` was changing must not be used after a panic.
///
/// # Errors
/// The panic's message.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    outcome.map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_string()
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn panics_become_messages() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(
            caught(|| [1, 2][std::hint::black_box(2)]).unwrap_err().split(':').next(),
            Some("index out of bounds")
        );
        assert_eq!(caught(|| caught(|| panic!("a {}", 1))), Ok(Err::<(), _>("a 1".to_string())));
    }
}
