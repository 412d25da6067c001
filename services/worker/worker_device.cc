#include "services/worker/worker_device.h"
