#include "pool.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

namespace widehrnet {
namespace {

struct Call {
  const std::function<void()>* job;
  int active = 0;
  std::condition_variable left;
};

// Never destroyed: its threads may outlive whatever the end of the process destroys. A fork leaves the threads behind,
// so the child gets a pool of its own.
struct Pool {
  std::condition_variable wanted;
  std::deque<Call*> calls;  // one entry for each helper that is wanted
  int idle = 0, threads = 0;
};

std::mutex& mutex() {
  static std::mutex* made = new std::mutex;
  return *made;
}
Pool* pool = nullptr;

void lock_before_fork() { mutex().lock(); }
void unlock_in_parent() { mutex().unlock(); }
void start_again_in_child() {
  pool = new Pool;
  mutex().unlock();
}

Pool& the_pool() {
  if (!pool) {
    pool = new Pool;
#if !defined(_WIN32)
    pthread_atfork(lock_before_fork, unlock_in_parent, start_again_in_child);
#endif
  }
  return *pool;
}

void work(Pool* mine) {
  std::unique_lock<std::mutex> lock(mutex());
  for (;;) {
    ++mine->idle;
    mine->wanted.wait(lock, [&] { return !mine->calls.empty(); });
    --mine->idle;
    Call* call = mine->calls.front();
    mine->calls.pop_front();
    ++call->active;
    lock.unlock();
    (*call->job)();
    lock.lock();
    if (--call->active == 0) call->left.notify_one();
  }
}

}  // namespace

Guard::Guard() {
  mutex().lock();
  the_pool();
}
Guard::~Guard() { mutex().unlock(); }

void together(int helpers, const std::function<void()>& job) {
  if (helpers < 1) return job();
  Call call;
  call.job = &job;
  Pool* mine;
  {
    std::unique_lock<std::mutex> lock(mutex());
    mine = &the_pool();
    mine->calls.insert(mine->calls.end(), helpers, &call);
    // one call never has more threads than it asks for, and all calls together share those of the largest
    while (mine->threads < helpers) {
      try {
        std::thread(work, mine).detach();
      } catch (const std::system_error&) {
        break;  // fewer threads are slower, not wrong
      }
      ++mine->threads;
    }
    for (int i = 0; i < helpers; ++i) mine->wanted.notify_one();
  }
  job();
  std::unique_lock<std::mutex> lock(mutex());
  for (auto at = mine->calls.begin(); at != mine->calls.end();) at = *at == &call ? mine->calls.erase(at) : at + 1;
  call.left.wait(lock, [&] { return call.active == 0; });
}

}  // namespace widehrnet
