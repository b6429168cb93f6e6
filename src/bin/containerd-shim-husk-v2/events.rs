//! What containerd is told unasked. One event at a time is under way, so that they arrive in order; while containerd is away
//! they wait, and what was under way then is sent again.

use crate::task::now;
use crate::ttrpc::Connection;
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::ttrpc::Request;
use containerd_shim_protos::ttrpc::proto::MESSAGE_TYPE_RESPONSE;
use husk::log;
use husk::sys::socket;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Events that wait while containerd is away; it asks for states when it is back, so the oldest matter least.
const QUEUE: usize = 256;
const RETRY: Duration = Duration::from_secs(1);

pub struct Publisher {
    namespace: String,
    /// None: nobody wants to know.
    address: Option<PathBuf>,
    connection: Option<Connection>,
    /// Encoded requests; the first one is under way if `sent`.
    queue: VecDeque<Vec<u8>>,
    sent: bool,
    stream: u32,
    retry: Option<Instant>,
}

impl Publisher {
    /// `address` is containerd's TTRPC_ADDRESS.
    pub fn new(namespace: &str, address: Option<String>) -> Publisher {
        let path = |a: String| PathBuf::from(a.strip_prefix("unix://").unwrap_or(&a));
        Publisher {
            namespace: namespace.into(),
            address: address.filter(|a| !a.is_empty()).map(path),
            connection: None,
            queue: VecDeque::new(),
            sent: false,
            stream: 0,
            retry: None,
        }
    }

    /// `topic` without its "/tasks/".
    pub fn publish<M: Message>(&mut self, topic: &str, event: &M) {
        if self.address.is_none() {
            return;
        }
        match self.encode(topic, event) {
            Ok(request) => self.queue.push_back(request),
            Err(e) => return log::warn(format_args!("encode event '{topic}': {e}")),
        }
        if self.queue.len() > QUEUE {
            log::warn("containerd takes no events; the oldest one is dropped");
            self.queue.remove(usize::from(self.sent));
        }
        self.advance();
    }

    fn encode<M: Message>(
        &self,
        topic: &str,
        event: &M,
    ) -> containerd_shim_protos::protobuf::Result<Vec<u8>> {
        let mut envelope = Envelope::new();
        envelope.timestamp = Some(now()).into();
        envelope.namespace = self.namespace.clone();
        envelope.topic = format!("/tasks/{topic}");
        envelope.event = Some(any(&type_name(topic), event)?).into();
        let mut forward = ForwardRequest::new();
        forward.envelope = Some(envelope).into();
        let mut request = Request::new();
        request.service = "containerd.services.events.ttrpc.v1.Events".into();
        request.method = "Forward".into();
        request.payload = forward.write_to_bytes()?;
        request.timeout_nano = Duration::from_secs(5).as_nanos() as i64;
        request.write_to_bytes()
    }

    /// Sends the next event if none is under way.
    fn advance(&mut self) {
        if self.sent || self.queue.is_empty() || self.retry.is_some() {
            return;
        }
        if self.connection.is_none() {
            let address = self.address.as_deref().expect("else nothing is queued");
            match socket::try_connect(address).and_then(Connection::new) {
                Ok(connection) => self.connection = Some(connection),
                Err(e) => {
                    log::debug(format_args!("publish an event: {e}"));
                    self.retry = Some(Instant::now() + RETRY);
                    return;
                }
            }
            self.stream = 1; // a client's streams are odd
        }
        if let (Some(connection), Some(request)) = (&mut self.connection, self.queue.front()) {
            connection.request(self.stream, request);
            self.stream += 2;
            self.sent = true;
        }
    }

    pub fn poll(&self) -> Option<(BorrowedFd<'_>, i16)> {
        self.connection.as_ref().map(|c| (c.fd(), c.wants()))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The descriptor is ready.
    pub fn step(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.send();
        let mut alive = connection.receive();
        while alive {
            match connection.next() {
                Ok(Some(frame)) if frame.kind == MESSAGE_TYPE_RESPONSE => {
                    self.queue.pop_front();
                    self.sent = false;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => alive = false,
            }
        }
        if !alive {
            self.connection = None;
            self.sent = false;
        }
        self.advance();
    }

    /// The time has come to try again.
    pub fn tick(&mut self, now: Instant) {
        if self.retry.is_some_and(|t| t <= now) {
            self.retry = None;
            self.advance();
        }
    }
}

pub fn any<M: Message>(name: &str, message: &M) -> containerd_shim_protos::protobuf::Result<Any> {
    let mut any = Any::new();
    any.type_url = name.into();
    any.value = message.write_to_bytes()?;
    Ok(any)
}

/// "exec-added" → "containerd.events.TaskExecAdded".
fn type_name(topic: &str) -> String {
    let mut name = String::from("containerd.events.Task");
    for word in topic.split('-') {
        if word == "oom" {
            name += "OOM";
        } else {
            name.extend(word.chars().take(1).map(|c| c.to_ascii_uppercase()));
            name.extend(word.chars().skip(1));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_events() {
        assert_eq!(type_name("create"), "containerd.events.TaskCreate");
        assert_eq!(type_name("exec-added"), "containerd.events.TaskExecAdded");
        assert_eq!(type_name("oom"), "containerd.events.TaskOOM");
    }
}
