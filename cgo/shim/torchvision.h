// What torchvision's operators have in Python alone.
#pragma once

namespace tv {

// Registers the gradients and the autocast casts of torchvision's operators, as the package itself does in
// Python from 0.28 on, where its library is loaded and has none. Later calls do nothing.
void complete_torchvision();

}  // namespace tv
