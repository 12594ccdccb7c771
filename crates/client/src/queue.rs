//! The events of one command, between the connection and the reader.
//!
//! Owns: their order, their end, and the credit for the memory that they use. Invariant: an event
//! stays in the queue until the step that returns it to the reader, and the queue never costs more
//! than was granted.

use crate::lost::ExecLost;
use crate::monitor::Ready;
use bytes::{Bytes, BytesMut};
use msb_wire::limits::{COPY_BELOW, MAX_DATA};
use msb_wire::{
    End, ExecAction, ExecInput, ExecState, Exited, Failure, Message, OutputStream, ReceiveCredit,
    StdinError, cost,
};
use std::collections::VecDeque;

/// One event, as the agent sent it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The command is running.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// Bytes that it wrote.
    Output(OutputStream, Bytes),
    /// The command no longer reads its input.
    StdinError(StdinError),
    /// The command ended.
    Exited(Exited),
    /// The command failed to start.
    Failed(Failure),
    /// The connection was lost before the command ended.
    Lost(ExecLost),
}

/// The result of reading several events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// At least one event.
    Events,
    /// No event yet.
    Nothing,
    /// No further events.
    End(StreamEnd),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamEnd {
    /// Another process still had the output open.
    pub writer_left: bool,
    /// The connection was lost after the exit: later output of other processes is missing.
    pub cut: bool,
}

/// What a message requires beyond the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// The last message on this channel.
    pub(crate) last: bool,
    /// A limit to grant to the agent.
    pub(crate) grant: Option<u64>,
}

/// The queue itself, locked by its owner.
#[derive(Debug)]
pub(crate) struct Queue {
    state: ExecState,
    events: VecDeque<Queued>,
    credit: ReceiveCredit,
    end: Option<StreamEnd>,
    reader: Reader,
    /// The command no longer reads its input, and the event was queued.
    stdin_broken: bool,
}

/// The state of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The handle is open; no call waits.
    Idle,
    /// A call waits.
    Waiting,
    /// The handle was closed.
    Gone,
}

/// Why a call may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Busy,
    Closed,
}

#[derive(Debug)]
struct Queued {
    body: Body,
    cost: u64,
}

#[derive(Debug)]
enum Body {
    Event(Event),
    /// Small pieces of one stream, merged until they are read.
    Growing(OutputStream, BytesMut),
}

/// An event that was removed, and its cost.
pub(crate) type Taken = (Event, u64);

impl Ready for Queue {
    fn is_ready(&self) -> bool {
        !self.events.is_empty() || self.end.is_some() || self.reader == Reader::Gone
    }
}

impl Queue {
    /// Creates the queue of a new command.
    pub(crate) fn new(window: u64) -> Self {
        Queue::beginning(ExecState::Opening, window)
    }

    /// Creates the queue of a session to be joined.
    pub(crate) fn joining(window: u64) -> Self {
        Queue::beginning(ExecState::Joining, window)
    }

    fn beginning(state: ExecState, window: u64) -> Self {
        Queue {
            state,
            events: VecDeque::new(),
            credit: ReceiveCredit::new(window),
            end: None,
            reader: Reader::Idle,
            stdin_broken: false,
        }
    }

    /// Handles a message of the agent; the error names the violated rule.
    pub(crate) fn on_message(&mut self, message: Message) -> Result<Consequence, String> {
        let (next, action) = self.state.on(ExecInput::of(&message));
        let mut consequence = Consequence::default();
        match action {
            ExecAction::Violation(rule) => return Err(rule.to_owned()),
            ExecAction::Ignore => return Ok(consequence),
            ExecAction::Apply => {}
            ExecAction::Deliver | ExecAction::DeliverLast | ExecAction::Finish => self.state = next,
        }
        match message {
            Message::Stdout(data) => {
                consequence.grant = self.output(OutputStream::Stdout, data)?;
            }
            Message::Stderr(data) => {
                consequence.grant = self.output(OutputStream::Stderr, data)?;
            }
            // Credit for the command's input, which is not kept here.
            Message::Credit(_) => {}
            Message::Started(started) => self.push(Event::Started { pid: started.pid }),
            Message::Attached(attached) => self.push(Event::Started { pid: attached.pid }),
            // It costs no credit, so at most one is queued.
            Message::StdinError(_) if self.stdin_broken => {
                return Err("a second input error".to_owned());
            }
            Message::StdinError(error) => {
                self.stdin_broken = true;
                self.push(Event::StdinError(error));
            }
            Message::Exited(exited) => self.push(Event::Exited(exited)),
            Message::Failed(failure) => {
                self.push(Event::Failed(failure));
                self.end = Some(StreamEnd::default());
            }
            Message::End(End { writer_left, .. }) => {
                self.end = Some(StreamEnd { writer_left, cut: false });
            }
            _ => return Err("a frame of another kind of channel".to_owned()),
        }
        consequence.last = self.end.is_some();
        Ok(consequence)
    }

    /// Reports that the connection is lost.
    pub(crate) fn on_lost(&mut self, lost: &ExecLost) {
        let (next, action) = self.state.on(ExecInput::Lost);
        self.state = next;
        match action {
            ExecAction::DeliverLast => {
                self.push(Event::Lost(lost.clone()));
                self.end = Some(StreamEnd::default());
            }
            ExecAction::Finish => self.end = Some(StreamEnd { writer_left: true, cut: true }),
            _ => {}
        }
    }

    fn push(&mut self, event: Event) {
        if self.reader != Reader::Gone {
            self.events.push_back(Queued { body: Body::Event(event), cost: 0 });
        }
    }

    /// Queues output. Returns a limit to grant at once if the reader is gone.
    fn output(&mut self, stream: OutputStream, data: Bytes) -> Result<Option<u64>, String> {
        self.credit.receive(data.len()).map_err(|error| error.to_string())?;
        let cost = cost(data.len());
        if self.reader == Reader::Gone {
            return Ok(self.credit.release(cost));
        }
        if data.len() < COPY_BELOW
            && let Some(last) = self.events.back_mut()
            && last.body.append(stream, &data)
        {
            last.cost += cost;
        } else {
            let body = Body::Event(Event::Output(stream, data));
            self.events.push_back(Queued { body, cost });
        }
        Ok(None)
    }

    /// Removes the next event.
    pub(crate) fn take(&mut self) -> Option<Result<Taken, StreamEnd>> {
        match self.events.pop_front() {
            Some(queued) => Some(Ok(queued.taken())),
            None => self.end.map(Err),
        }
    }

    /// Removes up to `max` events; returns the end only if there are none.
    pub(crate) fn take_many(&mut self, max: usize) -> Option<Result<Vec<Taken>, StreamEnd>> {
        if self.events.is_empty() {
            return self.end.map(Err);
        }
        let count = max.min(self.events.len());
        Some(Ok(self.events.drain(..count).map(Queued::taken).collect()))
    }

    /// Reads for the holder of the turn.
    pub(crate) fn take_in_turn<T>(
        &mut self,
        take: impl FnOnce(&mut Queue) -> Option<T>,
    ) -> Option<Result<T, Refused>> {
        if self.is_closed() {
            return Some(Err(Refused::Closed));
        }
        take(self).map(Ok)
    }

    /// Returns credit. `Some` is a limit to grant now.
    pub(crate) fn release(&mut self, cost: u64) -> Option<u64> {
        self.credit.release(cost).filter(|_| self.state != ExecState::Ended)
    }

    /// Returns how much was received if the reader has not taken all of it: the agent may lack
    /// credit for its answer.
    pub(crate) fn behind(&self) -> Option<u64> {
        (self.credit.held() > 0).then(|| self.credit.received())
    }

    /// Returns whether a call may read now.
    pub(crate) fn may_read(&self) -> Result<(), Refused> {
        match self.reader {
            Reader::Idle => Ok(()),
            Reader::Waiting => Err(Refused::Busy),
            Reader::Gone => Err(Refused::Closed),
        }
    }

    /// Reserves the queue for one waiting call.
    pub(crate) fn begin_wait(&mut self) -> Result<(), Refused> {
        self.may_read()?;
        self.reader = Reader::Waiting;
        Ok(())
    }

    pub(crate) fn end_wait(&mut self) {
        if self.reader == Reader::Waiting {
            self.reader = Reader::Idle;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.reader == Reader::Gone
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == ExecState::Ended
    }

    /// Closes the reader. Returns the queued events, and a limit to grant for their memory.
    pub(crate) fn close(&mut self) -> (VecDeque<impl Sized + use<>>, Option<u64>) {
        self.reader = Reader::Gone;
        let events = std::mem::take(&mut self.events);
        let cost = events.iter().map(|queued| queued.cost).sum();
        (events, self.release(cost))
    }
}

impl Queued {
    fn taken(self) -> Taken {
        let event = match self.body {
            Body::Event(event) => event,
            Body::Growing(stream, data) => Event::Output(stream, data.freeze()),
        };
        (event, self.cost)
    }
}

impl Body {
    /// Appends to the body if it is output of the same stream with room left.
    fn append(&mut self, stream: OutputStream, data: &[u8]) -> bool {
        match self {
            Body::Growing(of, grown) if *of == stream && grown.len() + data.len() <= MAX_DATA => {
                grown.extend_from_slice(data);
                true
            }
            Body::Event(Event::Output(of, first)) if *of == stream && first.len() < COPY_BELOW => {
                let mut grown = BytesMut::with_capacity(COPY_BELOW.max(first.len() + data.len()));
                grown.extend_from_slice(first);
                grown.extend_from_slice(data);
                *self = Body::Growing(stream, grown);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_wire::Started;
    use msb_wire::limits::OUTPUT_WINDOW;

    fn running() -> Queue {
        let mut queue = Queue::new(OUTPUT_WINDOW);
        queue.on_message(Message::Started(Started { pid: 1 })).unwrap();
        queue.take().unwrap().unwrap();
        queue
    }

    fn out(data: &'static [u8]) -> Message {
        Message::Stdout(Bytes::from_static(data))
    }

    fn taken(queue: &mut Queue) -> Vec<(OutputStream, Vec<u8>, u64)> {
        let mut all = Vec::new();
        while let Some(Ok((event, cost))) = queue.take() {
            let Event::Output(stream, data) = event else { panic!("{event:?}") };
            all.push((stream, data.to_vec(), cost));
        }
        all
    }

    #[test]
    fn b2_small_chunks_of_one_stream_merge_in_order() {
        let mut queue = running();
        for message in [out(b"a"), out(b"b"), Message::Stderr(Bytes::from_static(b"e")), out(b"c")]
        {
            queue.on_message(message).unwrap();
        }
        let (one, two) = (OutputStream::Stdout, OutputStream::Stderr);
        assert_eq!(
            taken(&mut queue),
            [
                (one, b"ab".to_vec(), 2 * cost(1)),
                (two, b"e".to_vec(), cost(1)),
                (one, b"c".to_vec(), cost(1)),
            ]
        );
    }

    #[test]
    fn merged_event_is_at_most_one_frame() {
        let mut queue = running();
        for _ in 0..100 {
            queue.on_message(Message::Stdout(Bytes::from(vec![7; 4000]))).unwrap();
        }
        let all = taken(&mut queue);
        assert!(all.iter().all(|(_, data, _)| data.len() <= MAX_DATA));
        assert_eq!(all.iter().map(|(_, data, _)| data.len()).sum::<usize>(), 400_000);
        assert_eq!(all.iter().map(|(_, _, cost)| cost).sum::<u64>(), 100 * cost(4000));
    }

    #[test]
    fn b6_more_output_than_was_granted_is_refused() {
        let mut queue = running();
        let mut sent = 0;
        let refused = loop {
            sent += cost(MAX_DATA);
            match queue.on_message(Message::Stdout(Bytes::from(vec![0; MAX_DATA]))) {
                Ok(_) => assert!(sent <= OUTPUT_WINDOW),
                Err(why) => break why,
            }
        };
        assert!(sent > OUTPUT_WINDOW);
        assert!(refused.contains("credit"), "{refused}");
    }

    #[test]
    fn output_after_close_costs_no_credit_and_no_memory() {
        let mut queue = running();
        queue.on_message(out(b"before")).unwrap();
        let (events, _) = queue.close();
        assert_eq!(events.len(), 1);
        let mut granted = OUTPUT_WINDOW;
        let mut sent = 0;
        for _ in 0..100 {
            sent += cost(MAX_DATA);
            let data = Bytes::from(vec![0; MAX_DATA]);
            let consequence = queue.on_message(Message::Stdout(data)).unwrap();
            granted = consequence.grant.unwrap_or(granted);
            assert!(granted - sent > cost(MAX_DATA), "the command would have to wait");
        }
        assert!(queue.events.is_empty());
    }

    #[test]
    fn waiting_reader_excludes_others() {
        let mut queue = running();
        queue.begin_wait().unwrap();
        assert_eq!(queue.begin_wait(), Err(Refused::Busy));
        assert_eq!(queue.may_read(), Err(Refused::Busy));
        queue.end_wait();
        assert_eq!(queue.may_read(), Ok(()));
        drop(queue.close());
        queue.end_wait();
        assert_eq!(queue.may_read(), Err(Refused::Closed));
    }
}
