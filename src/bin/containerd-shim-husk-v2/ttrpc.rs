//! Frames on a Unix socket: ten bytes (length, stream, type, flags) and a message.
//!
//! Neither side waits: what cannot be written now is kept until the socket takes it.

use anyhow::{Result, bail};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::proto::{
    MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MESSAGE_TYPE_REQUEST, MESSAGE_TYPE_RESPONSE,
};
use containerd_shim_protos::ttrpc::{Code, MessageHeader, Response, Status};
use husk::sys::errno::EAGAIN;
use husk::sys::fs;
use husk::sys::process::{POLLIN, POLLOUT};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why a call failed, as the caller gets it.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

pub type Answer<T> = Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
        }
    }

    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Code::NOT_FOUND, message)
    }

    pub fn precondition(message: impl Into<String>) -> Failure {
        Failure::new(Code::FAILED_PRECONDITION, message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Failure {
        Failure::new(Code::UNKNOWN, husk::error::text(&e))
    }
}

impl From<husk::sys::Error> for Failure {
    fn from(e: husk::sys::Error) -> Failure {
        Failure::new(Code::UNKNOWN, e.to_string())
    }
}

/// Where a response goes.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Which of the shim's connections.
    pub connection: u64,
    pub stream: u32,
}

pub struct Frame {
    pub stream: u32,
    pub kind: u8,
    pub payload: Vec<u8>,
}

pub struct Connection {
    fd: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Connection {
    pub fn new(fd: OwnedFd) -> husk::sys::Result<Connection> {
        fs::set_nonblocking(fd.as_fd())?;
        Ok(Connection {
            fd,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn wants(&self) -> i16 {
        if self.output.is_empty() {
            POLLIN
        } else {
            POLLIN | POLLOUT
        }
    }

    pub fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Takes what has come. False: the peer has gone.
    pub fn receive(&mut self) -> bool {
        let mut buf = [0; 4096];
        loop {
            match fs::read(self.fd.as_fd(), &mut buf) {
                Ok(0) => return false,
                Ok(n) => self.input.extend(&buf[..n]),
                Err(e) => return e.errno() == EAGAIN,
            }
        }
    }

    /// The next whole frame. An error: what comes is not this protocol, and the connection cannot be used on.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        if self.input.len() < MESSAGE_HEADER_LENGTH {
            return Ok(None);
        }
        let header = MessageHeader::from(&self.input[..MESSAGE_HEADER_LENGTH]);
        let length = header.length as usize;
        if length > MESSAGE_LENGTH_MAX {
            bail!("a message of {length} bytes; at most {MESSAGE_LENGTH_MAX} are allowed");
        }
        let end = MESSAGE_HEADER_LENGTH + length;
        if self.input.len() < end {
            return Ok(None);
        }
        let payload = self.input[MESSAGE_HEADER_LENGTH..end].to_vec();
        self.input.drain(..end);
        if self.input.is_empty() {
            self.input = Vec::new(); // a large request must not cost for ever
        }
        Ok(Some(Frame {
            stream: header.stream_id,
            kind: header.type_,
            payload,
        }))
    }

    pub fn request(&mut self, stream: u32, message: &[u8]) {
        self.queue(stream, MESSAGE_TYPE_REQUEST, message);
    }

    pub fn respond(&mut self, stream: u32, result: Answer<Vec<u8>>) {
        let mut response = Response::new();
        match result {
            Ok(payload) => response.payload = payload,
            Err(failure) => {
                let mut status = Status::new();
                status.code = failure.code.into();
                status.message = failure.message;
                response.status = Some(status).into();
            }
        }
        match response.write_to_bytes() {
            Ok(bytes) => self.queue(stream, MESSAGE_TYPE_RESPONSE, &bytes),
            Err(e) => husk::log::warn(format_args!("encode a response: {e}")),
        }
    }

    fn queue(&mut self, stream: u32, kind: u8, message: &[u8]) {
        let header = MessageHeader {
            length: message.len() as u32,
            stream_id: stream,
            type_: kind,
            flags: 0,
        };
        self.output.extend(Vec::from(header));
        self.output.extend(message);
        self.send();
    }

    /// Writes what the socket takes. A peer that is gone shows on the next read.
    pub fn send(&mut self) {
        while !self.output.is_empty() {
            match fs::write_some(self.fd.as_fd(), &self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.errno() == EAGAIN => return,
                Err(_) => break,
            }
        }
        self.output = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::Message;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_are_put_together_from_pieces() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours.into()).unwrap();
        let bytes = [0, 0, 0, 3, 0, 0, 0, 7, 1, 0, b'a', b'b', b'c', 0, 0, 0, 0];
        peer.write_all(&bytes[..5]).unwrap();
        assert!(connection.receive());
        assert!(connection.next().unwrap().is_none());
        peer.write_all(&bytes[5..]).unwrap();
        assert!(connection.receive());
        let frame = connection.next().unwrap().unwrap();
        assert_eq!((frame.stream, frame.kind), (7, MESSAGE_TYPE_REQUEST));
        assert_eq!(frame.payload, b"abc");
        assert!(connection.next().unwrap().is_none());
        drop(peer);
        assert!(!connection.receive());
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_connection() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours.into()).unwrap();
        peer.write_all(&[0xff; 10]).unwrap();
        assert!(connection.receive());
        assert!(connection.next().is_err());
    }

    #[test]
    fn a_failure_is_a_status() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours.into()).unwrap();
        connection.respond(9, Err(Failure::not_found("no such container")));
        let mut bytes = [0; 256];
        let n = peer.read(&mut bytes).unwrap();
        let header = MessageHeader::from(&bytes[..MESSAGE_HEADER_LENGTH]);
        assert_eq!((header.stream_id, header.type_), (9, MESSAGE_TYPE_RESPONSE));
        let response = Response::parse_from_bytes(&bytes[MESSAGE_HEADER_LENGTH..n]).unwrap();
        assert_eq!(response.status.code.value(), 5);
        assert_eq!(response.status.message, "no such container");
    }
}
