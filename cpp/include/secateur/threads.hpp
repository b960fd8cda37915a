// A small pool of our own. OpenMP is not used: its runtimes (libgomp, libiomp5) clash when
// TensorFlow and NumPy bring theirs into the same process.
#pragma once

#include <cstddef>
#include <functional>

namespace secateur {

// Threads that parallel_for may use, the caller included. Set at load from SECATEUR_NUM_THREADS,
// else from the CPUs this process may run on.
int num_threads();

// Throws std::invalid_argument unless 1 <= count <= 1024.
void set_num_threads(int count);

// Runs task(0) ... task(num_tasks - 1), each once, on any thread and in any order; returns when all
// are done and rethrows the first exception. Kernels split work by size alone, never by the number
// of threads, so results cannot depend on it. A call made while the pool is busy (from another
// thread, or from inside a task) runs its tasks on the calling thread: no waiting, no deadlock.
void parallel_for(std::size_t num_tasks, const std::function<void(std::size_t)>& task);

}  // namespace secateur
