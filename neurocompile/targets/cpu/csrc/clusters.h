/* neurocompile: pushes for models that were trained on clusters of events; only libraries of such models have them.
 *
 * A cluster is an event that stands for several: its intensity says for how many, any finite number from 0 on. The pushes of
 * neurocompile.h work too and give every event the intensity 1.
 */
#ifndef NEUROCOMPILE_CLUSTERS_H
#define NEUROCOMPILE_CLUSTERS_H

#include "neurocompile.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As `nc_push` and `nc_push_many`. */
NC_API int nc_push_cluster(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p, float intensity);
NC_API int64_t nc_push_clusters(nc_session *session, size_t count, const int64_t *t, const uint16_t *x,
                                const uint16_t *y, const uint8_t *p, const float *intensity);

/* As `nc_get_window` and `nc_set_window`, after the latter. */
NC_API int nc_get_intensity(const nc_session *session, uint32_t part, float *intensity, size_t count);
NC_API int nc_set_intensity(nc_session *session, uint32_t part, const float *intensity, size_t count);

#ifdef __cplusplus
}
#endif
#endif
