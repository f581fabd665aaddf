//! Logs from files as a kubelet leaves them: `<namespace>_<pod>_<uid>/<container>/<restart>.log`, each line
//! `<time> stdout|stderr F <text>` (the CRI log format; `P` instead of `F` marks a line that goes on).

use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::{LOOK_AGAIN, LogAnswer, LogError, LogQuery, PodLogs};
use crate::cluster::Cluster;
use crate::json::{self, list, text};
use crate::store::Key;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// A folder of log files, and the cluster that says which containers still run.
#[derive(Debug)]
pub struct LogFolder {
    folder: PathBuf,
    cluster: Cluster,
}

impl LogFolder {
    pub(crate) fn new(folder: PathBuf, cluster: Cluster) -> Self {
        Self { folder, cluster }
    }
}

impl PodLogs for LogFolder {
    fn logs(&self, query: LogQuery) -> LogAnswer {
        let run = if query.previous {
            query.restarts.saturating_sub(1)
        } else {
            query.restarts
        };
        let path = self
            .folder
            .join(format!("{}_{}_{}", query.namespace, query.pod, query.uid))
            .join(&query.container)
            .join(format!("{run}.log"));
        let cluster = self.cluster.clone();
        Box::pin(async move {
            let file = File::open(&path).await.map_err(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    LogError::NotStarted {
                        container: query.container.clone(),
                        pod: query.pod.clone(),
                        why: "ContainerCreating".to_owned(),
                    }
                } else {
                    LogError::Unavailable(format!("failed to open log file {}: {error}", path.display()))
                }
            })?;
            let mut reader = Reader {
                file,
                rest: BytesMut::new(),
                left: query.limit_bytes.unwrap_or(usize::MAX),
                query,
                cluster,
                ended: false,
            };
            let start = reader.start().await?;
            let pieces = futures::stream::unfold((Some(start), reader), |(start, mut reader)| async move {
                if let Some(start) = start {
                    return Some((start, (None, reader)));
                }
                let piece = reader.next().await?;
                Some((piece, (None, reader)))
            });
            Ok(Box::pin(pieces) as super::LogStream)
        })
    }
}

struct Reader {
    file: File,
    /// The beginning of a line whose end is not written yet.
    rest: BytesMut,
    /// How many bytes the reader may still get.
    left: usize,
    query: LogQuery,
    cluster: Cluster,
    ended: bool,
}

impl Reader {
    /// What is there already, but for the lines that are too old or before the tail.
    async fn start(&mut self) -> Result<Bytes, LogError> {
        let mut lines: std::collections::VecDeque<Bytes> = std::collections::VecDeque::new();
        loop {
            let read = self
                .lines()
                .await
                .map_err(|error| LogError::Unavailable(format!("failed to read the log: {error}")))?;
            if read.is_empty() {
                break;
            }
            for line in read {
                lines.push_back(line);
                if self.query.tail_lines.is_some_and(|tail| lines.len() > tail) {
                    lines.pop_front();
                }
            }
        }
        Ok(self.join(lines))
    }

    /// What came since; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.query.follow {
            return None;
        }
        loop {
            if self.left == 0 {
                return None;
            }
            // Asked before reading, so that what was written just before the end is not lost.
            let over = self.ended || !self.is_running();
            let lines = match self.lines().await {
                Ok(lines) => lines,
                Err(error) => {
                    tracing::warn!(pod = %self.query.pod, %error, "a followed log cannot be read any more");
                    return None;
                }
            };
            if !lines.is_empty() {
                return Some(self.join(lines));
            }
            if over {
                return None;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The whole lines that can be read now, in the form that was asked for.
    async fn lines(&mut self) -> std::io::Result<Vec<Bytes>> {
        self.rest.reserve(PIECE);
        self.file.read_buf(&mut self.rest).await?;
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1).freeze();
            lines.extend(self.form(&line));
        }
        Ok(lines)
    }

    /// A line of the file as the reader wants it; none when it is too old.
    fn form(&self, line: &[u8]) -> Option<Bytes> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, _stream, tag, content) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let time = std::str::from_utf8(time).ok()?;
        if let Some(since) = self.query.since
            && time
                .parse::<Timestamp>()
                .is_ok_and(|time| time.as_second() < since)
        {
            return None;
        }
        let content = if tag == b"P" {
            content.strip_suffix(b"\n").unwrap_or(content)
        } else {
            content
        };
        let mut formed = BytesMut::with_capacity(content.len() + 32);
        if self.query.timestamps {
            formed.put_slice(time.as_bytes());
            formed.put_u8(b' ');
        }
        formed.put_slice(content);
        Some(formed.freeze())
    }

    fn join(&mut self, lines: impl IntoIterator<Item = Bytes>) -> Bytes {
        let mut joined = BytesMut::new();
        for line in lines {
            joined.put_slice(&line);
        }
        joined.truncate(self.left);
        self.left -= joined.len();
        joined.freeze()
    }

    /// Whether the run of the container that is read goes on.
    fn is_running(&mut self) -> bool {
        let query = &self.query;
        let key = Key::new("pods", &query.namespace, &query.pod);
        let pod = self.cluster.read(|state| state.store.get(&key));
        let running = pod.is_some_and(|pod| {
            let status = list(&pod, &["status", "containerStatuses"])
                .iter()
                .chain(list(&pod, &["status", "initContainerStatuses"]))
                .find(|one| text(one, &["name"]) == query.container);
            json::uid(&pod) == query.uid
                && !query.previous
                && !matches!(text(&pod, &["status", "phase"]), "Succeeded" | "Failed")
                && status.is_some_and(|status| {
                    json::at(status, &["state", "terminated"]).is_none()
                        && status
                            .get("restartCount")
                            .and_then(serde_json::Value::as_u64)
                            .unwrap_or_default()
                            == query.restarts
                })
        });
        self.ended = !running;
        running
    }
}
