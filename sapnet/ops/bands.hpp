// Accumulation of the canvas gradient by several workers, without races and in a reproducible order.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "taps.hpp"
#include "work.hpp"

// Limit of the total size of all spills for canvases that are smaller than this.
constexpr long kSpillBytes = 32L << 20;

// Each worker owns a range of rows of the gradient and adds to them in place. Contributions to other rows are added to
// a separate spill buffer, and the owners collect them at the end, worker by worker. Points in raster order spill only
// as many rows as the taps reach. If a random order would spill more than the limit, fewer workers are used.
template <typename T> class Bands {
  struct Band {
    long own = 0, own_end = 0, low = 0, high = 0;  // among the rows of all images; the taps reach [low, high)
    long spilled = 0;  // elements of the spill
    std::unique_ptr<Buffer<T>> spill;
    std::vector<T*> rows;  // rows from `low` on, in place or in the spill

    bool owns(long row) const { return row >= own && row < own_end; }
    bool reaches(long row) const { return row >= low && row < high; }
  };
  const Problem<T>& p_;
  T* gradient_;
  long width_;  // elements of a row
  std::vector<Band> bands_;

 public:
  Bands(const Problem<T>& p, T* gradient) : p_(p), gradient_(gradient), width_(p.w * p.c) {
    const long allowed = std::max<long>(kSpillBytes / sizeof(T), p.b * p.h * width_);
    for (long n = p.workers(); divide(n) > allowed;) n /= 2;
    for (Band& band : bands_) place(band);
  }

  long workers() const { return static_cast<long>(bands_.size()); }

  // Addresses of the rows for a worker, defined for rows that its taps reach.
  auto rows_of(long worker) const {
    const Band& band = bands_[worker];
    T* const* rows = band.rows.data() - band.low;
    return [rows](long row) { return rows[row]; };
  }

  // Call before a worker's first addition.
  void clear(long worker) const {
    const Band& band = bands_[worker];
    std::fill(gradient_ + band.own * width_, gradient_ + band.own_end * width_, T(0));
    std::fill_n(band.spill->data, band.spilled, T(0));
  }

  // Call after the last addition of all workers.
  void collect(long worker) const {
    const Band& band = bands_[worker];
    for (const Band& other : bands_) {
      if (&other == &band) continue;
      for (long r = std::max(band.own, other.low); r < std::min(band.own_end, other.high); r++) {
        const T* from = other.rows[r - other.low];
        T* to = gradient_ + r * width_;
        for (long i = 0; i < width_; i++) to[i] += from[i];
      }
    }
  }

 private:
  // Divides the rows among n workers; returns the total number of elements of the spills.
  long divide(long n) {
    bands_ = std::vector<Band>(n);
    work(p_.threads, n, [&](long j) { scan(j, n); });
    long end = 0, spilled = 0;
    for (Band& band : bands_) end = band.own = std::max(band.own, end);
    for (long j = 0; j < n; j++) bands_[j].own_end = j + 1 < n ? bands_[j + 1].own : p_.b * p_.h;
    bands_[0].own = 0;
    for (const Band& band : bands_)
      for (long r = band.low; r < band.high; r++) spilled += band.owns(r) ? 0 : width_;
    return spilled;
  }

  // Determines the rows that a worker's taps reach; the rows it owns start at its first point.
  void scan(long j, long n) {
    Band& band = bands_[j];
    band.own = 0, band.low = p_.b * p_.h, band.high = 0;
    bool started = false;
    const long end = std::min(p_.positions(), part(p_.tiles(), j + 1, n) * kTile);
    for (long i = part(p_.tiles(), j, n) * kTile; i < end; i++) {
      long index;
      p_.point(i, index);
      if (index < 0) continue;
      const long image = i / p_.l * p_.h, row = index / p_.w;
      if (!started) band.own = image + row, started = true;
      T least = 0, most = 0;
      if (p_.offsets) {
        const T* shift = p_.offsets + i * p_.taps() * 2;
        for (long k = 0; k < p_.taps(); k++) {
          least = shift[2 * k] < least ? shift[2 * k] : least;
          most = shift[2 * k] > most ? shift[2 * k] : most;
        }
      }
      const T far = static_cast<T>(p_.h + p_.size);
      const long up = static_cast<long>(std::floor(std::max(least, -far))), reach = p_.size / 2;
      const long down = static_cast<long>(std::floor(std::min(most, far))) + 1;
      band.low = std::min(band.low, image + std::clamp(row - reach + up, 0L, p_.h - 1));
      band.high = std::max(band.high, image + std::clamp(row + reach + down, 0L, p_.h - 1) + 1);
    }
  }

  void place(Band& band) {
    long spilled = 0;
    for (long r = band.low; r < band.high; r++) spilled += band.owns(r) ? 0 : width_;
    band.spill = std::make_unique<Buffer<T>>(spilled);
    T* next = band.spill->data;
    for (long r = band.low; r < band.high; r++) {
      band.rows.push_back(band.owns(r) ? gradient_ + r * width_ : next);
      if (!band.owns(r)) next += width_;
    }
    band.spilled = spilled;
  }
};
