#include "services/worker/worker_process.h"

int main(int argc, char** argv) { return triptych::services::RunWorker(argc, argv); }
