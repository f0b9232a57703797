//! Extracts the data of server-sent events from pieces that may be cut anywhere.

/// The received part of a line that is not complete yet.
#[derive(Debug, Default)]
pub struct EventLines {
    rest: Vec<u8>,
}

impl EventLines {
    /// Adds a piece and returns the data of the lines that are now complete. Comments and other fields are skipped.
    pub fn push(&mut self, piece: &[u8]) -> Vec<String> {
        let mut data = Vec::new();
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.rest).into_owned();
                self.rest.clear();
                data.extend(line.strip_prefix("data:").map(|data| data.trim().to_string()));
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_may_be_cut_anywhere() {
        let text = ": hello\r\nevent: x\ndata: {\"a\": \"尺\"}\r\n\r\ndata:[DONE]\n\ndata: unfinished";
        for size in 1..text.len() {
            let mut lines = EventLines::default();
            let data: Vec<String> = text.as_bytes().chunks(size).flat_map(|piece| lines.push(piece)).collect();
            assert_eq!(data, ["{\"a\": \"尺\"}", "[DONE]"], "in pieces of {size} bytes");
        }
    }
}
