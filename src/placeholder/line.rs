//! Requests that wait for one thread to come to them, and that may be called off meanwhile, also the one that the thread is at.

use super::requests::Request;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many wait at most.
const MOST: usize = 1024;

/// The requests.
#[derive(Debug, Default)]
pub(super) struct Line {
    requests: Mutex<Requests>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<Request>,
    current: Option<Request>,
}

impl Line {
    /// Adds one at the end; gives it back if there are too many.
    pub(super) fn add(&self, request: Request) -> Result<(), Request> {
        let mut requests = self.locked();
        if requests.waiting.len() >= MOST {
            return Err(request);
        }
        requests.waiting.push_back(request);
        self.more.notify_one();
        Ok(())
    }

    /// The next one; waits for it. The one before is through.
    pub(super) fn next(&self) -> Request {
        let mut requests = self.locked();
        requests.current = None;
        loop {
            if let Some(request) = requests.waiting.pop_front() {
                requests.current = Some(request.clone());
                return request;
            }
            requests = self.more.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody waits any longer for the request of this number: returns it, if it is here.
    pub(super) fn call_off(&self, unique: u64) -> Option<Request> {
        let mut requests = self.locked();
        let is_it = |request: &Request| request.unique == unique;
        let at = requests.waiting.iter().position(is_it);
        at.and_then(|at| requests.waiting.remove(at)).or_else(|| requests.current.take_if(|request| is_it(request)))
    }

    fn locked(&self) -> MutexGuard<'_, Requests> {
        // Nothing is left half-done by a thread that panics while it holds it.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::sys::fuse::HEAD;

    fn request(unique: u64) -> Request {
        let mut bytes = [0; HEAD];
        bytes[4] = 3;
        bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        Request::parse(&bytes).unwrap()
    }

    #[test]
    fn in_turn_and_until_they_are_called_off() {
        let line = Line::default();
        (1..=3).for_each(|unique| line.add(request(unique)).unwrap());
        assert_eq!(line.call_off(2).unwrap().unique, 2);
        assert_eq!(line.next().unique, 1);
        assert_eq!(line.call_off(2), None);
        assert_eq!(line.call_off(1).unwrap().unique, 1);
        assert_eq!(line.call_off(1), None);
        assert_eq!(line.next().unique, 3);
    }

    #[test]
    fn there_is_an_end_of_them() {
        let line = Line::default();
        (0..MOST as u64).for_each(|unique| line.add(request(unique)).unwrap());
        assert_eq!(line.add(request(9999)).unwrap_err().unique, 9999);
    }
}
