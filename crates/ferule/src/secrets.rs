//! Unguessable random numbers, and bytes in hexadecimal.

/// `N` random bytes from the system, in hexadecimal.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_hex<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
