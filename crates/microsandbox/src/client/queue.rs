//! The events of one command, between the connection and the reader.
//!
//! Owns: their order, their end, and the credit for the memory that they hold. Invariant: an event
//! is in the queue until the very step that hands it to the reader, and what is in the queue never
//! costs more than was granted.

use crate::client::monitor::Ready;
use crate::event::ExecLost;
use bytes::{Bytes, BytesMut};
use msb_wire::limits::{COPY_BELOW, MAX_DATA};
use msb_wire::{
    End, ExecAction, ExecInput, ExecState, Exited, Failure, Message, OutputStream, ReceiveCredit,
    StdinError, cost,
};
use std::collections::VecDeque;

/// One event, as the agent told it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Started { pid: u32 },
    Output(OutputStream, Bytes),
    StdinError(StdinError),
    Exited(Exited),
    Failed(Failure),
    Lost(ExecLost),
}

/// What a look for several events finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// At least one.
    Events,
    /// None yet.
    Nothing,
    /// None more, ever.
    End(StreamEnd),
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamEnd {
    /// Some other process still had the output open.
    pub writer_left: bool,
    /// The connection was lost after the exit: what others still wrote is missing.
    pub cut: bool,
}

/// What a message means beyond the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Consequence {
    /// Nothing more comes on this channel.
    pub(super) last: bool,
    /// A limit to grant to the agent.
    pub(super) grant: Option<u64>,
}

/// The queue itself. The owner locks it.
#[derive(Debug)]
pub(super) struct Queue {
    state: ExecState,
    events: VecDeque<Queued>,
    credit: ReceiveCredit,
    end: Option<StreamEnd>,
    reader: Reader,
    /// The command no longer reads its input, and the event of that was queued.
    stdin_broken: bool,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The handle is there; nobody waits.
    Idle,
    /// Somebody waits.
    Waiting,
    /// The handle was closed.
    Gone,
}

/// Why somebody may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
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
    /// Small pieces that grow together while nobody has taken them.
    Growing(OutputStream, BytesMut),
}

/// What was taken out: the event and what it cost.
pub(super) type Taken = (Event, u64);

impl Ready for Queue {
    fn is_ready(&self) -> bool {
        !self.events.is_empty() || self.end.is_some() || self.reader == Reader::Gone
    }
}

impl Queue {
    /// For a command that is asked for.
    pub(super) fn new(window: u64) -> Self {
        Queue::beginning(ExecState::Opening, window)
    }

    /// For a session that is to be followed.
    pub(super) fn joining(window: u64) -> Self {
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

    /// Takes a message of the agent in; the error says which rule it breaks.
    pub(super) fn on_message(&mut self, message: Message) -> Result<Consequence, String> {
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
            // It is for the command's input, which is not kept here.
            Message::Credit(_) => {}
            Message::Started(started) => self.push(Event::Started { pid: started.pid }),
            Message::Attached(attached) => self.push(Event::Started { pid: attached.pid }),
            // It costs no credit, so that only one bounds the queue.
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

    /// The connection is lost.
    pub(super) fn on_lost(&mut self, lost: &ExecLost) {
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

    /// Takes output in. `Some` is a limit to grant at once, when nobody will ever read it.
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

    /// Takes the next event out.
    pub(super) fn take(&mut self) -> Option<Result<Taken, StreamEnd>> {
        match self.events.pop_front() {
            Some(queued) => Some(Ok(queued.taken())),
            None => self.end.map(Err),
        }
    }

    /// Takes the next events out, up to `max`; the end only when it is all there is.
    pub(super) fn take_many(&mut self, max: usize) -> Option<Result<Vec<Taken>, StreamEnd>> {
        if self.events.is_empty() {
            return self.end.map(Err);
        }
        let count = max.min(self.events.len());
        Some(Ok(self.events.drain(..count).map(Queued::taken).collect()))
    }

    /// A look by the one whose turn it is.
    pub(super) fn look_in_turn<T>(
        &mut self,
        look: impl FnOnce(&mut Queue) -> Option<T>,
    ) -> Option<Result<T, Refused>> {
        if self.is_closed() {
            return Some(Err(Refused::Closed));
        }
        look(self).map(Ok)
    }

    /// Gives credit back. `Some` is a limit to grant now.
    pub(super) fn release(&mut self, cost: u64) -> Option<u64> {
        self.credit.release(cost).filter(|_| self.state != ExecState::Ended)
    }

    /// Returns how much has come, if the reader has not yet taken all of it: the agent may have no
    /// room for what it has to tell.
    pub(super) fn behind(&self) -> Option<u64> {
        (self.credit.held() > 0).then(|| self.credit.received())
    }

    /// Whether somebody may look now.
    pub(super) fn may_read(&self) -> Result<(), Refused> {
        match self.reader {
            Reader::Idle => Ok(()),
            Reader::Waiting => Err(Refused::Busy),
            Reader::Gone => Err(Refused::Closed),
        }
    }

    /// Reserves the queue for one that waits.
    pub(super) fn begin_wait(&mut self) -> Result<(), Refused> {
        self.may_read()?;
        self.reader = Reader::Waiting;
        Ok(())
    }

    pub(super) fn end_wait(&mut self) {
        if self.reader == Reader::Waiting {
            self.reader = Reader::Idle;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.reader == Reader::Gone
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == ExecState::Ended
    }

    /// Nobody will read any more. The events go, and `Some` is a limit to grant for their room.
    pub(super) fn close(&mut self) -> (VecDeque<impl Sized + use<>>, Option<u64>) {
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
    /// Appends to the body if it is output of the same stream with room for more.
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
    fn an_event_grows_no_longer_than_one_frame() {
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
    fn output_that_nobody_will_read_costs_no_credit_and_no_memory() {
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
    fn one_that_waits_keeps_others_out() {
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
