# The CUDA sides (x.cu) of the ops, compiled by nvcc where cmake/TriptychCuda.cmake finds it.
# Without it the ops answer Unimplemented for Device::kCuda. Plain rules instead of CMake's CUDA
# language: that would have to be enabled by every folder that links this library.
if(NOT TARGET triptych_cudart)
  return()
endif()

set(TRIPTYCH_NVCC_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a
    -Xptxas=-warn-spills -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-fPIC -I${CMAKE_SOURCE_DIR})
file(GLOB KERNEL_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
foreach(source IN LISTS KERNEL_CUDA_SOURCES)
  get_filename_component(name ${source} NAME)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${TRIPTYCH_NVCC} ${TRIPTYCH_NVCC_FLAGS} -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM)
  target_sources(triptych_kernels PRIVATE ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
endforeach()
target_compile_definitions(triptych_kernels PRIVATE TRIPTYCH_HAS_CUDA)
target_link_libraries(triptych_kernels PUBLIC triptych_cudart)
