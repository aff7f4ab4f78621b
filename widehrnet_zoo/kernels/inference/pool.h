// Threads that help whoever asks, and sleep otherwise.
#pragma once
#include <functional>

namespace widehrnet {

// Run `job` here and on up to `helpers` other threads, and return when it has ended on all that took part. Threads that
// are busy elsewhere are not waited for: `job` must do all the work alone if it has to, and return at once when nothing
// is left. It must not throw.
void together(int helpers, const std::function<void()>& job);

// Guards what must be whole when the process forks; held for moments only.
class Guard {
 public:
  Guard();
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
};

}  // namespace widehrnet
