//! Passing open files to another process over a Unix socket, with a line of text that says what they are. Blocking;
//! one message a call.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most files in a message.
const MAX_FILES: usize = 8;
/// The longest text of a message, bytes; a `run` request carries the client's environment.
const MAX_TEXT: usize = 1 << 20;
/// How much text goes beside the files; the rest follows as plain bytes.
const FIRST: usize = 1024;

/// Sends `text` and the files. The text must not have a line break.
pub fn send(socket: impl AsFd, text: &str, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() >= MAX_TEXT || text.contains('\n') || files.len() > MAX_FILES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too much for one message",
        ));
    }
    let line = format!("{text}\n");
    let (first, mut rest) = line.as_bytes().split_at(line.len().min(FIRST));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut extra = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !extra.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("the files do not fit into one message"));
    }
    let sent = rustix::io::retry_on_intr(|| {
        sendmsg(&socket, &[IoSlice::new(first)], &mut extra, SendFlags::NOSIGNAL)
    })?;
    let mut none = SendAncillaryBuffer::default();
    let (_, mut unsent) = first.split_at_checked(sent).unwrap_or((first, &[]));
    while let Some(part) = [&mut unsent, &mut rest].into_iter().find(|part| !part.is_empty()) {
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&socket, &[IoSlice::new(part)], &mut none, SendFlags::NOSIGNAL)
        })?;
        *part = part.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Receives a text and its files. `None` when the other side has closed without a word.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let mut text = Vec::new();
    let mut files = Vec::new();
    let mut bytes = [0_u8; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut extra = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut extra,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in extra.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                files.extend(received);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || files.len() > MAX_FILES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more files than were agreed upon",
            ));
        }
        let part = bytes.get(..received.bytes).unwrap_or_default();
        if part.is_empty() {
            return if text.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        text.extend_from_slice(part);
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            // One message a turn: nobody speaks again before he is answered.
            if end + 1 != text.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one line"));
            }
            text.truncate(end);
            return String::from_utf8(text)
                .map(|text| Some((text, files)))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if text.len() > MAX_TEXT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn files_arrive_open_with_a_long_text() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let text = "x".repeat(100_000);
        let sender = std::thread::spawn({
            let text = text.clone();
            move || send(&here, &text, &[writer.as_fd()]).unwrap()
        });
        let (received, mut files) = receive(&there).unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(received, text);
        let mut writer = std::fs::File::from(files.pop().unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "through");
        assert!(receive(&there).unwrap().is_none());
    }
}
