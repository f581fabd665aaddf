//! Containers' output in files, in the form in which container runtimes leave them for a kubelet: each line is
//! `<time> stdout|stderr F|P <text>`. Bounded: what is too much is dropped and said so once.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use podid_rt::clock::Clock;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line; a longer one is written in parts. Source: containerd, `max_container_log_line_size`.
const MAX_LINE: usize = 16 * 1024;
/// The most that is kept of one run of a container, bytes. Source: kubelet, `containerLogMaxSize`.
const MAX_BYTES: usize = 10 * 1024 * 1024;

/// The log of one run of a container. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Mutex<(File, usize)>,
    clock: Clock,
}

impl Log {
    /// A new one at that path, whose folder is made.
    pub(super) fn create(path: &Path, clock: Clock) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = Mutex::new((File::create(path)?, 0));
        Ok(Self(Arc::new(Inner { file, clock })))
    }

    /// Writes what comes from `source` until its end.
    pub(super) async fn follow(self, stream: &'static str, mut source: impl AsyncRead + Unpin) {
        let mut bytes = Vec::with_capacity(MAX_LINE);
        loop {
            let room = MAX_LINE.saturating_sub(bytes.len());
            let read = (&mut source)
                .take(u64::try_from(room).unwrap_or(u64::MAX))
                .read_buf(&mut bytes)
                .await;
            let over = matches!(read, Ok(0) | Err(_));
            let mut rest = bytes.as_slice();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, after) = rest.split_at(end);
                self.line(stream, "F", line);
                rest = after.get(1..).unwrap_or_default();
            }
            if !rest.is_empty() && (over || rest.len() >= MAX_LINE) {
                // The last line of a program need not end.
                self.line(stream, if over { "F" } else { "P" }, rest);
                rest = &[];
            }
            bytes = rest.to_vec();
            bytes.reserve(MAX_LINE);
            if over {
                return;
            }
        }
    }

    fn line(&self, stream: &str, tag: &str, text: &[u8]) {
        let now = now(&self.0.clock);
        let mut guard = self.0.file.lock();
        let (file, written) = &mut *guard;
        if *written > MAX_BYTES {
            return;
        }
        let mut line = format!("{now:.9} {stream} {tag} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        *written = written.saturating_add(line.len());
        if *written > MAX_BYTES {
            line = format!(
                "{now:.9} {stream} F (the sandbox keeps {MAX_BYTES} bytes of a log; the rest is dropped)\n"
            )
            .into_bytes();
        }
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(%error, "a container's log cannot be written");
        }
    }
}

/// The time of day.
pub(super) fn now(clock: &Clock) -> Timestamp {
    let time = clock.since_epoch();
    let secs = i64::try_from(time.as_secs()).unwrap_or_default();
    Timestamp::new(secs, i32::try_from(time.subsec_nanos()).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(input: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/0.log");
        let log = Log::create(&path, Clock::fixed(1_700_000_000)).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(log.follow("stdout", input));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_carry_time_stream_and_whether_they_end() {
        assert_eq!(
            written(b"one\n\nthree"),
            "2023-11-14T22:13:20.000000000Z stdout F one\n\
             2023-11-14T22:13:20.000000000Z stdout F \n\
             2023-11-14T22:13:20.000000000Z stdout F three\n"
        );
        let long = vec![b'x'; MAX_LINE + 1];
        let text = written(&long);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains(" P x") && lines[1].ends_with(" F x"),
            "{}",
            lines.len()
        );
    }

    #[test]
    fn a_talkative_container_does_not_fill_the_disk() {
        let text = written(&b"0123456789abcdef0123456789abcdef\n".repeat(200_000));
        assert!(text.len() < MAX_BYTES + 200, "{}", text.len());
        assert!(text.lines().last().unwrap().contains("is dropped"));
    }
}
